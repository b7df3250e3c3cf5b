import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { spawn } from "../support/owned-process.ts";

const TOP = resolve(import.meta.dirname, "../..");
/**
 * A replica that cannot start, because the database is away, is restarted after this time, as a supervisor does
 * it.
 */
const RESTART_MS = 300;
const SERVING = /^gRPC {2}http:\/\/\S+:(\d+)\nHTTP {2}http:\/\/\S+:(\d+)\n/m;

export interface ReplicaOptions {
  readonly name: string;
  readonly databaseUrl: () => string;
  readonly env: Readonly<Record<string, string>>;
  readonly logFile: string;
  /** The folder of the program, for the start with this number, from 0. Default: this checkout. */
  readonly programOf?: ((start: number) => string) | undefined;
  /** It ended without a request, after it had served. */
  readonly onDied: (how: string) => void;
}

/** A real process of the service that is restarted, unless it is meant to be down. */
export class ReplicaProcess implements AsyncDisposable {
  readonly name: string;
  readonly #options: ReplicaOptions;
  #child: ChildProcess | undefined;
  #grpcPort: number | undefined;
  #wanted = false;
  #served = 0;
  #keeper: Promise<void> = Promise.resolve();
  #serving = Promise.withResolvers<void>();

  constructor(options: ReplicaOptions) {
    this.#options = options;
    this.name = options.name;
  }

  /** The gRPC listener's; undefined while it does not serve. */
  get port(): number | undefined {
    return this.#grpcPort;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Starts it; `serving` resolves when it serves. */
  start(): void {
    if (this.#wanted) return;
    this.#wanted = true;
    const before = this.#keeper;
    this.#keeper = before.then(() => this.#keep());
  }

  /** Resolves when it serves, now or after its next start. */
  async serving(): Promise<void> {
    if (this.#grpcPort === undefined) await this.#serving.promise;
  }

  /** `kill -9`; it stays down until `start`. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  /** SIGTERM, which drains it; it stays down until `start`. */
  async terminate(): Promise<void> {
    await this.#end("SIGTERM");
  }

  freeze(): void {
    this.#child?.kill("SIGSTOP");
  }

  thaw(): void {
    this.#child?.kill("SIGCONT");
  }

  /** Its use of resources: resident bytes and open files. Undefined while it is down. */
  async sample(): Promise<{ residentBytes: number; files: number } | undefined> {
    const { pid } = this;
    if (pid === undefined) return undefined;
    const status = await readFile(`/proc/${pid}/status`, "utf8");
    const files = await readdir(`/proc/${pid}/fd`);
    return { residentBytes: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1_024, files: files.length };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  async #end(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    this.#wanted = false;
    this.#child?.kill(signal);
    await this.#keeper;
  }

  async #keep(): Promise<void> {
    while (this.#wanted) {
      const { served, how } = await this.#runOnce();
      if (!this.#wanted) return;
      if (served) this.#options.onDied(how);
      await sleep(RESTART_MS);
    }
  }

  async #runOnce(): Promise<{ served: boolean; how: string }> {
    const { databaseUrl, env, logFile, programOf } = this.#options;
    const log = createWriteStream(logFile, { flags: "a" });
    const child = spawn(process.execPath, ["src/main.ts", "serve"], {
      cwd: programOf?.(this.#served) ?? TOP,
      env: {
        PATH: process.env.PATH,
        HARBORFORGE_GRPC_ADDRESS: "127.0.0.1:0",
        HARBORFORGE_HTTP_ADDRESS: "127.0.0.1:0",
        DATABASE_URL: databaseUrl(),
        ...env,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    child.stderr.pipe(log);
    let said = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      const port = this.#grpcPort === undefined ? SERVING.exec(said)?.[1] : undefined;
      if (port === undefined) return;
      this.#grpcPort = Number(port);
      this.#serving.resolve();
    });
    const [code, signal] = await once(child, "close");
    const served = this.#grpcPort !== undefined;
    if (served) {
      this.#served += 1;
      this.#serving = Promise.withResolvers();
    }
    this.#grpcPort = undefined;
    this.#child = undefined;
    return { served, how: `it ended with ${code ?? signal}` };
  }
}
