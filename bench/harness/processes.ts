import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { spawn, spawnSync } from "../../test/support/owned-process.ts";

export const TOP = resolve(import.meta.dirname, "../..");
/** The timeout of a program's start, in milliseconds. */
const START_MS = 60_000;
/** The timeout of a job, in milliseconds. */
const JOB_MS = 900_000;
/** The timeout of an orderly stop, in milliseconds. */
const END_MS = 10_000;

/** The core of a process: the measured service, or the load. With two cores, each side has one. */
export type Side = "service" | "load";

/** Undefined without two cores, or without `taskset` (util-linux). */
export const CORES: Readonly<Record<Side, string>> | undefined = chooseCores();
export const PINNED = CORES !== undefined;

export interface Started extends AsyncDisposable {
  readonly pid: number;
  /** Its standard output so far. */
  readonly said: () => string;
  /** The end of its standard error. */
  readonly complained: () => string;
  readonly child: ChildProcess;
  /** Rejects if the process ends before its owner stops it. */
  readonly endedByItself: Promise<never>;
}

export interface StartOptions {
  /** "anywhere": the process may use the whole machine. */
  readonly side: Side | "anywhere";
  readonly env?: Readonly<Record<string, string>>;
  /** Whether it has a message channel, as between Node processes. */
  readonly channel?: boolean;
  readonly cwd?: string;
  /** The signal that stops it; default SIGTERM. */
  readonly endBy?: NodeJS.Signals;
}

const living = new Set<Started>();

/** Stops all running processes. */
export async function endAll(): Promise<void> {
  await Promise.all([...living].map((started) => started[Symbol.asyncDispose]()));
}

/** Starts a program that ends with its owner, together with all processes that it started. */
export function start(command: string, args: readonly string[], options: StartOptions): Started {
  const { side } = options;
  const pinned = CORES === undefined || side === "anywhere" ? [] : ["taskset", "-c", CORES[side]];
  const [program = command, ...rest] = [...pinned, command, ...args];
  const child = spawn(program, rest, {
    cwd: options.cwd ?? TOP,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...options.env },
    stdio: ["ignore", "pipe", "pipe", ...(options.channel === true ? (["ipc"] as const) : [])],
    // Its own process group: Ctrl-C in a terminal reaches only the bench, which stops everything in order.
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
    // If the owner stopped it, no one awaits this promise.
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

/** Waits until the standard output matches. */
export async function untilSaid(started: Started, pattern: RegExp): Promise<RegExpExecArray> {
  const deadline = performance.now() + START_MS;
  for (;;) {
    const match = pattern.exec(started.said());
    if (match !== null) return match;
    if (performance.now() > deadline) throw new Error(`it did not say ${pattern} in time`);
    await Promise.race([started.endedByItself, new Promise((resolve) => setTimeout(resolve, 20))]);
  }
}

/** A Node program of `bench/load` or `bench/peers` that does jobs one after the other. */
export class Worker implements AsyncDisposable {
  readonly #started: Started;

  /** @param flags of Node */
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
    // The process has ended already.
  }
}

/** The first two cores that this process may use. */
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
