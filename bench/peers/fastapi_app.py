"""The usual implementation of the same work: load the agent by its id, set fields, commit."""

import os
from datetime import datetime, timedelta, timezone

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import Column, DateTime, Integer, String, create_engine
from sqlalchemy.orm import Session, declarative_base, sessionmaker

engine = create_engine(os.environ["DATABASE_URL"], pool_size=20, max_overflow=20)
Sessions = sessionmaker(bind=engine, autoflush=False)
Base = declarative_base()
app = FastAPI()


class Agent(Base):
    __tablename__ = "bench_agents"
    id = Column(Integer, primary_key=True)
    agent_id = Column(String, unique=True, index=True, nullable=False)
    status = Column(String, nullable=False)
    last_heartbeat_at = Column(DateTime(timezone=True))
    lease_expires_at = Column(DateTime(timezone=True))


class Heartbeat(BaseModel):
    status: str


def session():
    opened = Sessions()
    try:
        yield opened
    finally:
        opened.close()


@app.post("/agents/{agent_id}/heartbeat")
def heartbeat(agent_id: str, beat: Heartbeat, db: Session = Depends(session)):
    agent = db.query(Agent).filter(Agent.agent_id == agent_id).first()
    if agent is None:
        raise HTTPException(status_code=404, detail="no such agent")
    now = datetime.now(timezone.utc)
    agent.status = beat.status
    agent.last_heartbeat_at = now
    agent.lease_expires_at = now + timedelta(seconds=30)
    db.commit()
    return {"status": agent.status, "next_heartbeat_in": 10}
