import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";

export const TOP = resolve(import.meta.dirname, "../..");
/** Longer than a program takes to begin. */
const START_MS = 60_000;
/** Longer than any one job lasts. */
const JOB_MS = 900_000;

/** Where it runs: what is measured, or what makes it work. Each has a core of its own where there are two. */
export type Side = "service" | "load";

const CORES: Readonly<Record<Side, string>> = { service: "0", load: "1" };
export const PINNED = spawnSync("taskset", ["-c", "1", "true"]).status === 0;

export interface Started extends AsyncDisposable {
  readonly pid: number;
  /** What it has written to its standard output. */
  readonly said: () => string;
  readonly child: ChildProcess;
}

export interface StartOptions {
  readonly side: Side;
  readonly env?: Readonly<Record<string, string>>;
  /** With a channel for messages, as between Node processes. */
  readonly channel?: boolean;
  readonly cwd?: string;
  /** Another signal than SIGTERM ends it at once. */
  readonly endBy?: NodeJS.Signals;
}

/** Starts a program that ends with its owner. Its errors are shown. */
export function start(command: string, args: readonly string[], options: StartOptions): Started {
  const pinned = PINNED ? ["taskset", "-c", CORES[options.side], command, ...args] : [command, ...args];
  const [program = command, ...rest] = pinned;
  const child = spawn(program, rest, {
    cwd: options.cwd ?? TOP,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...options.env },
    stdio: ["ignore", "pipe", "pipe", ...(options.channel === true ? (["ipc"] as const) : [])],
  });
  const { pid } = child;
  if (pid === undefined) throw new Error(`${command} does not run`);
  let said = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    said = (said + text).slice(-100_000);
  });
  let complaints = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    complaints = (complaints + text).slice(-5_000);
  });
  let wanted = true;
  const ended = once(child, "close").then(([code, signal]) => {
    if (wanted) console.error(`${command} ${args.join(" ")} ended by itself (${code ?? signal}):\n${complaints}`);
  });
  return {
    pid,
    child,
    said: () => said,
    async [Symbol.asyncDispose]() {
      wanted = false;
      child.kill(options.endBy ?? "SIGTERM");
      const late = setTimeout(() => child.kill("SIGKILL"), 10_000);
      await ended;
      clearTimeout(late);
    },
  };
}

/** Waits until what the program said matches. */
export async function untilSaid(started: Started, pattern: RegExp): Promise<RegExpExecArray> {
  const deadline = performance.now() + START_MS;
  for (;;) {
    const match = pattern.exec(started.said());
    if (match !== null) return match;
    if (started.child.exitCode !== null) throw new Error("it ended before it was ready");
    if (performance.now() > deadline) throw new Error(`it did not say ${pattern} in time`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A Node program of `bench/load` or `bench/peers` that does jobs that are sent to it, one after the other. */
export class Worker implements AsyncDisposable {
  readonly #started: Started;

  constructor(file: string, side: Side) {
    this.#started = start(process.execPath, [`bench/${file}`], { side, channel: true });
  }

  get pid(): number {
    return this.#started.pid;
  }

  async do<Result>(job: string, details: object = {}): Promise<Result> {
    const { child } = this.#started;
    child.send({ job, ...details });
    const [answer] = await once(child, "message", { signal: AbortSignal.timeout(JOB_MS) });
    if (typeof answer === "object" && answer !== null && "failed" in answer) throw new Error(String(answer.failed));
    return answer as Result;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#started[Symbol.asyncDispose]();
  }
}
