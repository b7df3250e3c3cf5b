import { once } from "node:events";
import { chmod, mkdir, rm } from "node:fs/promises";
import { delimiter, join, resolve } from "node:path";
import { expect, vi } from "vitest";
import { dataFolder } from "../../packages/embedded-postgres/src/data-folder.ts";
import { livingPostmaster, stopPostmaster } from "../../packages/embedded-postgres/src/postmaster.ts";
import { isPostmaster, readPostmasterFile } from "../../packages/embedded-postgres/src/postmaster-file.ts";
import { spawn, temporaryFolder } from "./owned-process.ts";

/** The top of the checkout. */
export const checkout = resolve(import.meta.dirname, "../..");

/** Longer than any step takes, also on a machine that is busy with other tests. */
const DEADLINE_MS = 60_000;

export interface Ending {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A process that runs the real program, or another one of the checkout. */
export interface Running {
  readonly pid: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Fulfilled when the process is gone and all its output was read. */
  readonly ended: Promise<Ending>;
  kill(signal: NodeJS.Signals): void;
  /** Sends the signal to the process's whole group, as a terminal does. Only with `group`. */
  killGroup(signal: NodeJS.Signals): void;
  /** Closes our end of its standard output: its later writes fail. */
  closeStdout(): void;
}

export interface Serving extends Running {
  /** `http://host:port` of the two listeners, `https` with TLS. */
  readonly grpc: string;
  readonly http: string;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
  /** The working directory. Default: the checkout. */
  readonly cwd?: string;
  /** In a process group of its own. */
  readonly group?: boolean;
}

/** A folder for a test, and programs in it. At its end no process and no file of them is left. */
export interface Stage extends AsyncDisposable {
  readonly path: string;
  readonly dataDir: string;
  /** Runs a command of the checkout; `node` is the one that runs the tests. */
  run(command: string, args: readonly string[], options?: RunOptions): Running;
  /** `node src/main.ts …`, on free ports and with the data in `dataDir` by default. */
  program(args: readonly string[], options?: RunOptions): Running;
  /** `program(["serve"])` that serves. */
  serve(options?: RunOptions): Promise<Serving>;
  /** The process id of the PostgreSQL that serves `dataDir`. */
  postmaster(): Promise<number>;
}

export async function openStage(): Promise<Stage> {
  const path = await temporaryFolder("process");
  // Root runs PostgreSQL as another account, which has to enter the folder.
  await chmod(path, 0o711);
  const dataDir = join(path, "data");
  const home = join(path, "home");
  await mkdir(home);
  const all: Running[] = [];
  const PATH = [join(checkout, "node_modules", ".bin"), process.env.PATH].join(delimiter);
  const base = { PATH, HOME: home, HARBORFORGE_DATA_DIR: dataDir, ...freePorts };

  const run: Stage["run"] = (command, args, options = {}) => {
    const running = start(command, args, { ...options, env: { ...base, ...options.env } });
    all.push(running);
    return running;
  };
  const program: Stage["program"] = (args, options) => run(process.execPath, ["src/main.ts", ...args], options);
  return {
    path,
    dataDir,
    run,
    program,
    serve: (options) => serves(program(["serve"], options)),
    async postmaster() {
      const file = await readPostmasterFile(dataFolder(dataDir).cluster);
      if (file === undefined) throw new Error("no PostgreSQL is running");
      return file.pid;
    },
    async [Symbol.asyncDispose]() {
      for (const running of all) running.kill("SIGKILL");
      await Promise.all(all.map(({ ended }) => ended));
      const { cluster } = dataFolder(dataDir);
      const left = await livingPostmaster(cluster).catch(() => undefined);
      if (left !== undefined) await stopPostmaster(cluster, left);
      await rm(path, { recursive: true, force: true });
    },
  };
}

const freePorts = { HARBORFORGE_GRPC_ADDRESS: "127.0.0.1:0", HARBORFORGE_HTTP_ADDRESS: "127.0.0.1:0" };

function start(command: string, args: readonly string[], options: RunOptions): Running {
  const child = spawn(command, args, {
    cwd: options.cwd ?? checkout,
    // Nothing of the environment of the tests: it may configure another service.
    env: { ...options.env },
    detached: options.group === true,
    stdio: ["pipe", "pipe", "pipe"],
  });
  const { pid } = child;
  if (pid === undefined) throw new Error(`${command} does not run`);
  const said = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => {
      said[name] += text;
    });
  }
  // A process that is gone accepts no input.
  child.stdin.on("error", () => undefined).end(options.input);
  const ended = once(child, "close").then(([code, signal]) => ({ code, signal, ...said }));
  return {
    pid,
    get stdout() {
      return said.stdout;
    },
    get stderr() {
      return said.stderr;
    },
    ended,
    kill: (signal) => void child.kill(signal),
    killGroup: (signal) => void process.kill(-pid, signal),
    closeStdout: () => void child.stdout.destroy(),
  };
}

/** Waits until the program prints its addresses. Fails with its output if it ends instead. */
export async function serves(running: Running): Promise<Serving> {
  const ended = running.ended.then(({ code, stderr }) => {
    throw new Error(`it ended with ${code} instead of serving: ${stderr}`);
  });
  const [, grpc = "", http = ""] = await Promise.race([
    ended,
    vi.waitFor(() => read(running, /^gRPC {2}(https?:\S+)\nHTTP {2}(https?:\S+)\n/m), {
      timeout: DEADLINE_MS,
      interval: 20,
    }),
  ]);
  return Object.assign(Object.create(running), { grpc, http });
}

function read(running: Running, pattern: RegExp): RegExpExecArray {
  const found = pattern.exec(running.stdout);
  if (found === null) throw new Error(`it has not said ${pattern} yet: ${running.stdout}${running.stderr}`);
  return found;
}

/** Waits until the output or the log contains or matches a text. */
export async function says(running: Running, pattern: RegExp | string): Promise<void> {
  await vi.waitFor(() => expect(running.stdout + running.stderr).toMatch(pattern), {
    timeout: DEADLINE_MS,
    interval: 10,
  });
}

/**
 * Waits until a PostgreSQL is gone. Not by the id alone: a process whose parent was killed may wait to be
 * collected long after it ended.
 */
export async function gone(dataDir: string, pid: number): Promise<void> {
  const file = { pid, port: undefined, status: "" };
  await vi.waitFor(async () => expect(await isPostmaster(dataFolder(dataDir).cluster, file)).toBe(false), {
    timeout: DEADLINE_MS,
    interval: 20,
  });
}
