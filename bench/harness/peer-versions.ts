import { spawnSync } from "../../test/support/owned-process.ts";

const PYTHON =
  "import fastapi, sqlalchemy, uvicorn; print(fastapi.__version__, sqlalchemy.__version__, uvicorn.__version__)";

/** The versions of the installed peers, if they are measured. */
export function peerVersions(peers: boolean): Record<string, string> {
  if (!peers) return {};
  const versions: Record<string, string> = {};
  const etcd = /Version: (\S+)/.exec(saidBy("etcd", "--version"))?.[1];
  if (etcd !== undefined) versions.etcd = etcd;
  const [fastapi, sqlalchemy, uvicorn] = saidBy("/usr/bin/python3", "-c", PYTHON).trim().split(" ");
  if (fastapi && sqlalchemy && uvicorn) Object.assign(versions, { FastAPI: fastapi, SQLAlchemy: sqlalchemy, uvicorn });
  return versions;
}

function saidBy(program: string, ...args: string[]): string {
  const { status, stdout } = spawnSync(program, args, { encoding: "utf8" });
  return status === 0 ? stdout : "";
}
