import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { spawn, spawnSync } from "../../test/support/owned-process.ts";

export const TOP = resolve(import.meta.dirname, "../..");
/** Longer than a program takes to begin. */
const START_MS = 60_000;
/** Longer than any one job lasts. */
const JOB_MS = 900_000;
/** Longer than a program needs to end in good order. */
const END_MS = 10_000;

/** Where it runs: what is measured, or what makes it work. Each has a core of its own where there are two. */
export type Side = "service" | "load";

/** Undefined where there are no two cores, or no program that pins (`taskset`, of util-linux). */
export const CORES: Readonly<Record<Side, string>> | undefined = chooseCores();
export const PINNED = CORES !== undefined;

export interface Started extends AsyncDisposable {
  readonly pid: number;
  /** What it has written to its standard output. */
  readonly said: () => string;
  /** The end of what it has written to its standard error. */
  readonly complained: () => string;
  readonly child: ChildProcess;
  /** Rejects if it ends before its owner ends it. */
  readonly endedByItself: Promise<never>;
}

export interface StartOptions {
  /** Anywhere: what people wait for has the whole machine. */
  readonly side: Side | "anywhere";
  readonly env?: Readonly<Record<string, string>>;
  /** With a channel for messages, as between Node processes. */
  readonly channel?: boolean;
  readonly cwd?: string;
  /** Another signal than SIGTERM ends it at once. */
  readonly endBy?: NodeJS.Signals;
}

const living = new Set<Started>();

/** Ends all that was started and lives, for one who was told to stop. */
export async function endAll(): Promise<void> {
  await Promise.all([...living].map((started) => started[Symbol.asyncDispose]()));
}

/** Starts a program that ends with its owner, and with all that it started itself. */
export function start(command: string, args: readonly string[], options: StartOptions): Started {
  const { side } = options;
  const pinned = CORES === undefined || side === "anywhere" ? [] : ["taskset", "-c", CORES[side]];
  const [program = command, ...rest] = [...pinned, command, ...args];
  const child = spawn(program, rest, {
    cwd: options.cwd ?? TOP,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...options.env },
    stdio: ["ignore", "pipe", "pipe", ...(options.channel === true ? (["ipc"] as const) : [])],
    // A group of its own: the Ctrl-C of a terminal reaches the bench alone, which ends everything in order.
    detached: true,
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
  const ended = once(child, "close");
  const endedByItself = ended.then(([code, signal]): Promise<never> => {
    const died = new Error(`${command} ${args.join(" ")} ended by itself (${code ?? signal}):\n${complaints}`);
    // Whom its owner ends nobody waits for any more.
    return wanted ? Promise.reject(died) : new Promise(() => undefined);
  });
  endedByItself.catch(() => undefined);
  const started: Started = {
    pid,
    child,
    said: () => said,
    complained: () => complaints,
    endedByItself,
    async [Symbol.asyncDispose]() {
      wanted = false;
      signalGroup(pid, options.endBy ?? "SIGTERM");
      const late = setTimeout(() => signalGroup(pid, "SIGKILL"), END_MS);
      await ended;
      clearTimeout(late);
      living.delete(started);
    },
  };
  living.add(started);
  return started;
}

/** Waits until what the program said matches. */
export async function untilSaid(started: Started, pattern: RegExp): Promise<RegExpExecArray> {
  const deadline = performance.now() + START_MS;
  for (;;) {
    const match = pattern.exec(started.said());
    if (match !== null) return match;
    if (performance.now() > deadline) throw new Error(`it did not say ${pattern} in time`);
    await Promise.race([started.endedByItself, new Promise((resolve) => setTimeout(resolve, 20))]);
  }
}

/** A Node program of `bench/load` or `bench/peers` that does jobs that are sent to it, one after the other. */
export class Worker implements AsyncDisposable {
  readonly #started: Started;

  /** `flags` are of Node. */
  constructor(file: string, side: Side, flags: readonly string[] = []) {
    this.#started = start(process.execPath, [...flags, `bench/${file}`], { side, channel: true });
  }

  get pid(): number {
    return this.#started.pid;
  }

  async do<Result>(job: string, details: object = {}): Promise<Result> {
    const { child, endedByItself } = this.#started;
    const answered = once(child, "message", { signal: AbortSignal.timeout(JOB_MS) });
    child.send({ job, ...details });
    const [answer] = await Promise.race([answered, endedByItself]);
    if (typeof answer === "object" && answer !== null && "failed" in answer) throw new Error(String(answer.failed));
    return answer as Result;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#started[Symbol.asyncDispose]();
  }
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // It has ended.
  }
}

/** The first two of those that this process may run on. */
function chooseCores(): Record<Side, string> | undefined {
  let allowed = "";
  try {
    allowed = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "";
  } catch {
    return undefined;
  }
  const cores = allowed.split(",").flatMap((range) => {
    const [first = Number.NaN, last = first] = range.split("-").map(Number);
    return Array.from({ length: Math.min(2, last - first + 1) || 0 }, (_, n) => String(first + n));
  });
  const [service, load] = cores;
  if (service === undefined || load === undefined) return undefined;
  return spawnSync("taskset", ["-c", load, "true"]).status === 0 ? { service, load } : undefined;
}
