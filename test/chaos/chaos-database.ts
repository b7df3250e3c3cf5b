import { readdir, readFile } from "node:fs/promises";
import {
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from "../../packages/embedded-postgres/src/embedded-postgres.ts";

/** A PostgreSQL that can be killed. Each start uses another port. */
export class ChaosDatabase implements AsyncDisposable {
  readonly #dataDir: string;
  #postgres: EmbeddedPostgres | undefined;
  #url: URL;

  private constructor(dataDir: string, postgres: EmbeddedPostgres) {
    this.#dataDir = dataDir;
    this.#postgres = postgres;
    this.#url = new URL(postgres.connectionString);
  }

  static async start(dataDir: string): Promise<ChaosDatabase> {
    return new ChaosDatabase(dataDir, await startPostgres(dataDir));
  }

  /** Of the running server, past every proxy. */
  get url(): string {
    return this.#url.href;
  }

  get port(): number {
    return Number(this.#url.port);
  }

  /** The same database by another port of this machine. */
  urlThrough(port: number): string {
    const through = new URL(this.#url);
    through.port = String(port);
    return through.href;
  }

  /** `kill -9` for the postmaster and all its children, like a power failure. */
  async kill(): Promise<void> {
    const postgres = this.#postgres;
    if (postgres === undefined) return;
    this.#postgres = undefined;
    const children = await childrenOf(postgres.pid);
    for (const pid of [postgres.pid, ...children]) kill(pid, "SIGKILL");
    // Finds no process to stop, and releases the data folder.
    await postgres.stop();
  }

  /** Starts the server again, which recovers what was committed. */
  async restart(): Promise<void> {
    this.#postgres = await startPostgres(this.#dataDir);
    this.#url = new URL(this.#postgres.connectionString);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#postgres?.stop();
    this.#postgres = undefined;
  }
}

async function startPostgres(dataDir: string): Promise<EmbeddedPostgres> {
  return await startEmbeddedPostgres({
    dataDir,
    log: { info() {}, warn() {} },
    // Killed processes lose nothing that was written to the kernel; only a power failure would.
    settings: { fsync: "off", max_connections: "200" },
  });
}

async function childrenOf(parent: number): Promise<number[]> {
  const children: number[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const stat = await readFile(`/proc/${name}/stat`, "utf8").catch(() => "");
    // The name in parentheses may contain anything; the state and the parent follow it.
    const [, ppid] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (Number(ppid) === parent) children.push(Number(name));
  }
  return children;
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // Gone already.
  }
}
