/** The processes of a run: one PostgreSQL behind a fixed port, and replicas that are killed and restarted. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chmod, rm } from "node:fs/promises";
import net from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { spawn, temporaryFolder } from "../support/owned-process.ts";

const DEADLINE_MS = 60_000;

interface OwnedCluster {
  readonly connectionString: string;
  readonly pid: number;
}

/** PostgreSQL in a process of its own, which can be killed at any moment. */
export class Cluster {
  readonly #folder: string;
  readonly #listener: net.Server;
  readonly #sockets = new Set<net.Socket>();
  #owner: ChildProcess | undefined;
  #cluster: OwnedCluster | undefined;

  private constructor(folder: string, listener: net.Server) {
    this.#folder = folder;
    this.#listener = listener;
  }

  static async start(): Promise<Cluster> {
    const folder = await temporaryFolder("watch-check");
    await chmod(folder, 0o711);
    const listener = net.createServer();
    const cluster = new Cluster(folder, listener);
    listener.on("connection", (socket) => cluster.#forward(socket));
    listener.listen(0, "127.0.0.1");
    await once(listener, "listening");
    await cluster.#serve();
    return cluster;
  }

  /** Its URL, before and after a restart. `database` instead of the service's own. */
  url(database?: string): string {
    const url = new URL(this.#cluster?.connectionString ?? "");
    const address = this.#listener.address();
    url.port = typeof address === "object" && address !== null ? `${address.port}` : "";
    if (database !== undefined) url.pathname = `/${database}`;
    return url.href;
  }

  async query(sql: string, values: readonly unknown[] = []): Promise<void> {
    const client = new pg.Client({ connectionString: this.url(), connectionTimeoutMillis: 5_000 });
    client.on("error", () => undefined);
    await client.connect();
    try {
      await client.query(sql, [...values]);
    } finally {
      await client.end();
    }
  }

  /** The service's own database, by its name. */
  get name(): string {
    return new URL(this.url()).pathname.slice(1);
  }

  /** SIGQUIT is a crash, SIGINT a requested restart. */
  async restart(signal: "SIGQUIT" | "SIGINT"): Promise<void> {
    if (this.#cluster !== undefined) process.kill(this.#cluster.pid, signal);
    await this.#endOwner();
    await this.#serve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#listener.close();
    await this.#endOwner();
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #serve(): Promise<void> {
    const owner = spawn(process.execPath, [join(import.meta.dirname, "../support/cluster-owner.ts"), this.#folder], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#owner = owner;
    this.#cluster = await saidBy(owner, (text) => {
      const line = text.split("\n").find((one) => one.includes('"serving"'));
      return line === undefined ? undefined : (JSON.parse(line) as OwnedCluster);
    });
  }

  async #endOwner(): Promise<void> {
    const owner = this.#owner;
    if (owner === undefined || owner.exitCode !== null) return;
    owner.stdin?.end();
    await once(owner, "exit");
  }

  #forward(socket: net.Socket): void {
    const port = Number(new URL(this.#cluster?.connectionString ?? "").port);
    const inner = net.connect(port, "127.0.0.1");
    for (const [one, other] of [
      [socket, inner],
      [inner, socket],
    ] as const) {
      this.#sockets.add(one);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        this.#sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  }
}

export interface ReplicaLimits {
  readonly ringCapacity?: number;
  readonly queueLimit?: number;
  readonly pageSize?: number;
  readonly maxAgeMs?: number;
}

/** A process of the service. */
export class Replica {
  readonly #env: NodeJS.ProcessEnv;
  #process: ChildProcess | undefined;
  /** `http://host:port`; undefined while it is down. */
  base: string | undefined;
  errors = "";

  constructor(databaseUrl: string, limits: ReplicaLimits) {
    this.#env = { ...process.env, DATABASE_URL: databaseUrl, WATCH_CHECK_LIMITS: JSON.stringify(limits) };
  }

  /** Restarts when it ends by itself: a connection that breaks during the start may cause that. */
  async start(): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      const child = spawn(process.execPath, [join(import.meta.dirname, "replica-process.ts")], {
        env: this.#env,
        // Its input closes with this process, and it ends with its input.
        stdio: ["pipe", "pipe", "pipe"],
      });
      this.#process = child;
      child.stderr.setEncoding("utf8").on("data", (text: string) => {
        this.errors = `${this.errors}${text}`.slice(-4_000);
      });
      try {
        this.base = await saidBy(child, (text) => /^HTTP {2}(http:\S+)$/m.exec(text)?.[1]);
        return;
      } catch (error) {
        if (attempt === 20) throw new Error(this.errors, { cause: error });
        await sleep(200);
      }
    }
  }

  /** SIGKILL ends it at once; SIGTERM lets it drain. */
  async stop(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    this.base = undefined;
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill(signal);
    await once(child, "exit");
  }
}

async function saidBy<Found>(child: ChildProcess, find: (text: string) => Found | undefined): Promise<Found> {
  let text = "";
  const { promise, resolve, reject } = Promise.withResolvers<Found>();
  const timer = setTimeout(() => reject(new Error(`it is not ready, and said: ${text}`)), DEADLINE_MS);
  child.stdout?.setEncoding("utf8").on("data", (more: string) => {
    text += more;
    const found = find(text);
    if (found !== undefined) resolve(found);
  });
  child.once("exit", (code, signal) => reject(new Error(`it ended with ${code ?? signal}, and said: ${text}`)));
  return await promise.finally(() => clearTimeout(timer));
}
