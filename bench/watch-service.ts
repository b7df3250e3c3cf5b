/** What the measurements of watching share: PostgreSQL as it comes along, replicas as processes of their own, figures. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { startEmbeddedPostgres } from "../src/storage/embedded/embedded-postgres.ts";

/** Of `/proc/<pid>/stat`, whose times are in hundredths of a second on every Linux. */
const TICK_MS = 10;
const READY_MS = 60_000;
const LOADED_AT_ONCE = 2_000;

/** One process of the service, with its default settings. */
export interface BenchReplica {
  /** `http://host:port` of the two doors. */
  readonly grpc: string;
  readonly http: string;
  readonly pid: number;
  /** CPU used so far, in milliseconds. Linux only, else NaN. */
  cpuMs(): number;
  /** Memory in use now, in MiB. Linux only, else NaN. */
  rssMb(): number;
}

export interface BenchService extends AsyncDisposable {
  readonly replicas: readonly BenchReplica[];
  readonly databaseUrl: string;
}

/** Starts a new database in a temporary folder and `count` replicas on it; all of it is gone at the end. */
export async function startBenchService(count: number): Promise<BenchService> {
  await using stack = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "harborforge-bench-"));
  await chmod(folder, 0o711);
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const postgres = await startEmbeddedPostgres({ dataDir: join(folder, "data"), log: { info() {}, warn() {} } });
  stack.defer(() => postgres.stop());
  const replicas: BenchReplica[] = [];
  for (let n = 0; n < count; n += 1) {
    const { replica, stop } = await startReplica(postgres.connectionString);
    stack.defer(stop);
    replicas.push(replica);
  }
  const owned = stack.move();
  return { replicas, databaseUrl: postgres.connectionString, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Makes users with an agent each, `agent-0` and so on, as the service itself does, but thousands at a time. */
export async function loadAgents(databaseUrl: string, count: number, claws: number): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    for (let first = 0; first < count; first += LOADED_AT_ONCE) {
      const changes = Array.from({ length: Math.min(LOADED_AT_ONCE, count - first) }, (_, n) => {
        const agent = `agent-${first + n}`;
        const names = {
          username: agent,
          agent_id: agent,
          claw_identifier: `claw-${(first + n) % claws}`,
          display_name: "",
        };
        const lease = { lease: "grant", lease_ms: 3_600_000, heartbeat: false };
        return {
          n,
          kind: "create",
          quiet: false,
          cause: "created",
          actor: "server",
          exhaustion: "keep",
          hold: "keep",
          ...names,
          ...lease,
        };
      });
      const { rowCount } = await client.query("SELECT FROM commit_changes(0, $1) WHERE outcome = 'committed'", [
        JSON.stringify(changes),
      ]);
      if (rowCount !== changes.length) throw new Error(`of ${changes.length} agents ${rowCount} were made`);
    }
  } finally {
    await client.end();
  }
}

async function startReplica(databaseUrl: string) {
  const child = spawn(process.execPath, [join(import.meta.dirname, "../src/main.ts"), "serve"], {
    env: {
      ...process.env,
      DATABASE_URL: databaseUrl,
      HARBORFORGE_GRPC_ADDRESS: "127.0.0.1:0",
      HARBORFORGE_HTTP_ADDRESS: "127.0.0.1:0",
      HARBORFORGE_LOG_LEVEL: "warn",
      HARBORFORGE_DRAIN_GRACE: "1s",
      // Agents of a measurement need not beat.
      HARBORFORGE_FIRST_LEASE: "1h",
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const text = await said(child, /^HTTP.*$/m);
  const replica: BenchReplica = {
    grpc: /^gRPC\s+(http:\S+)$/im.exec(text)?.[1] ?? "",
    http: /^HTTP\s+(http:\S+)$/m.exec(text)?.[1] ?? "",
    pid: child.pid ?? 0,
    cpuMs: () => cpuMsOf(child.pid ?? 0),
    rssMb: () => Number(/^VmRSS:\s+(\d+)/m.exec(proc(child.pid ?? 0, "status"))?.[1] ?? Number.NaN) / 1_024,
  };
  const stop = async () => {
    if (child.exitCode !== null) return;
    child.kill("SIGTERM");
    await once(child, "exit");
  };
  return { replica, stop };
}

async function said(child: ChildProcess, wanted: RegExp): Promise<string> {
  let text = "";
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const timer = setTimeout(() => reject(new Error(`the service is not ready, and said: ${text}`)), READY_MS);
  child.stdout?.setEncoding("utf8").on("data", (more: string) => {
    text += more;
    if (wanted.test(text)) resolve(text);
  });
  child.once("exit", (code, signal) => reject(new Error(`the service ended with ${code ?? signal}`)));
  return await promise.finally(() => clearTimeout(timer));
}

function cpuMsOf(pid: number): number {
  // After the name, which may hold anything: the 14th and 15th fields of the line are the 12th and 13th of the rest.
  const fields = proc(pid, "stat").split(") ").at(-1)?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

function proc(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch {
    return "";
  }
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** `share` from 0 to 1; NaN of nothing. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

/** Prints a table for people, and the same as one line of JSON with the machine that it was measured on. */
export function report(name: string, rows: readonly Readonly<Record<string, number | string>>[]): void {
  console.table(rows);
  const machine = { cpu: cpus()[0]?.model, cores: availableParallelism(), load: loadavg(), node: process.version };
  console.log(JSON.stringify({ name, at: new Date().toISOString(), machine, rows }));
}
