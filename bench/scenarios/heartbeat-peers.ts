import { createServer } from "node:net";
import { spawnSync } from "../../test/support/owned-process.ts";
import { cpuMs, family } from "../harness/cpu.ts";
import { start, untilSaid, Worker } from "../harness/processes.ts";
import { temporaryFolder } from "../harness/run-folder.ts";
import type { BenchRun } from "../harness/scenario.ts";
import type { Stage } from "../harness/stage.ts";
import type { HeartbeatFigures } from "../load/heartbeats.ts";
import type { Subject } from "./alternate.ts";

const POST_CONNECTIONS = 32;
const POST_RUN_IN_MS = 400;

export interface Etcd extends AsyncDisposable {
  readonly pid: number;
  readonly address: string;
}

/** A single etcd with its defaults, and as many leases as streams. Undefined if etcd is not installed. */
export async function openEtcd(bench: BenchRun, leases: number): Promise<Etcd | undefined> {
  if (spawnSync("etcd", ["--version"]).status !== 0) {
    bench.note("etcd was not found, and left out (Debian: apt-get install etcd-server)");
    return undefined;
  }
  await using undo = new AsyncDisposableStack();
  const folder = await temporaryFolder("etcd");
  const [client, peer] = [await freePort(), await freePort()];
  const urls = { client: `http://127.0.0.1:${client}`, peer: `http://127.0.0.1:${peer}` };
  const etcd = undo.use(
    start(
      "etcd",
      [
        ...["--data-dir", folder, "--logger", "zap", "--log-outputs", "stdout"],
        ...["--listen-client-urls", urls.client, "--advertise-client-urls", urls.client],
        ...["--listen-peer-urls", urls.peer, "--initial-advertise-peer-urls", urls.peer],
        ...["--initial-cluster", `default=${urls.peer}`],
      ],
      { side: "service" },
    ),
  );
  await untilSaid(etcd, /serving client traffic/);
  await using granting = new Worker("load/leases.ts", "load");
  await granting.do("grant", { address: `127.0.0.1:${client}`, count: leases });
  const everything = undo.move();
  return {
    pid: etcd.pid,
    address: `127.0.0.1:${client}`,
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

export interface FastApi extends AsyncDisposable {
  readonly subject: Subject;
}

/** One uvicorn worker on the same PostgreSQL. Undefined if its programs are not installed. */
export async function openFastApi(
  stage: Stage,
  bench: BenchRun,
  prefix: string,
  agents: number,
): Promise<FastApi | undefined> {
  const python = "/usr/bin/python3";
  if (spawnSync(python, ["-c", "import fastapi, sqlalchemy, uvicorn, psycopg2"]).status !== 0) {
    bench.note(
      "FastAPI was not found, and left out (Debian: apt-get install python3-fastapi python3-sqlalchemy python3-uvicorn python3-psycopg2)",
    );
    return undefined;
  }
  await using undo = new AsyncDisposableStack();
  const url = await stage.emptyDatabase("bench_fastapi");
  await stage.query(
    url,
    "CREATE TABLE bench_agents (id serial PRIMARY KEY, agent_id text UNIQUE NOT NULL, status text NOT NULL, last_heartbeat_at timestamptz, lease_expires_at timestamptz)",
  );
  await stage.query(
    url,
    "INSERT INTO bench_agents (agent_id, status) SELECT $1 || n, 'idle' FROM generate_series(1, $2::integer) n",
    [prefix, agents],
  );
  await stage.query(url, "ANALYZE");
  const port = await freePort();
  const app = undo.use(
    start(
      python,
      ["-m", "uvicorn", "--app-dir", "bench/peers", "fastapi_app:app", "--port", String(port), "--no-access-log"],
      {
        side: "service",
        env: {
          DATABASE_URL: url.replace("postgres://", "postgresql://"),
          PYTHONUNBUFFERED: "1",
          PYTHONDONTWRITEBYTECODE: "1",
        },
      },
    ),
  );
  await untilAnswers(port);
  const load = undo.use(new Worker("load/posts.ts", "load"));
  const job = { url: `http://127.0.0.1:${port}`, connections: POST_CONNECTIONS, prefix, agents };
  const count = async (ms: number) => await load.do<HeartbeatFigures>("count", { ...job, ms });
  const everything = undo.move();
  return {
    subject: {
      name: "fastapi",
      cpu: async () => ({ server: await cpuMs(await family(app.pid)), storage: await stage.cpuMs() }),
      begin: async () => void (await count(POST_RUN_IN_MS)),
      count,
      end: async () => undefined,
    },
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

async function untilAnswers(port: number): Promise<void> {
  const deadline = performance.now() + 30_000;
  for (;;) {
    const answer = await fetch(`http://127.0.0.1:${port}/openapi.json`).catch(() => undefined);
    if (answer?.ok === true) return;
    if (performance.now() > deadline) throw new Error("FastAPI does not answer");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.on("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      const port = typeof address === "object" && address !== null ? address.port : 0;
      probe.close(() => resolve(port));
    });
  });
}
