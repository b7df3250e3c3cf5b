-- The process of a claw that the agent was taken from: by another stream it does not take the agent back from whoever holds
-- it now. Written by claims only, never by beats.
ALTER TABLE agent_liveness ADD COLUMN superseded uuid;
