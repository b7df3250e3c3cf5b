import * as children from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { OWNER_VARIABLE, type Owned } from "./process-owner-words.ts";

// Tests, scripts and the bench start all processes through this module: each ends with the process that started
// it, however that one ends. A killed process cannot clean up, so a second one, the owner, waits at a pipe
// whose other end closes with the first. The owner then ends the marked processes of the first one, stops
// PostgreSQL, and removes folders and databases.

let owner: children.ChildProcess | undefined;

/** Starts the owner of this process, once, and marks all later processes by the environment. */
function ensureOwner(): children.ChildProcess {
  if (owner !== undefined) return owner;
  const id = `${process.pid}-${randomBytes(8).toString("hex")}`;
  const { [OWNER_VARIABLE]: outer, ...env } = process.env;
  owner = children.spawn(process.execPath, [join(import.meta.dirname, "process-owner.ts"), id], {
    cwd: "/",
    // Without the mark of an outer owner: both have to live until their work is done.
    env,
    // A session of its own, so that neither Ctrl-C of a terminal nor the end of a process group reaches it.
    detached: true,
    // Not our standard error: a reader of it would wait for the owner.
    stdio: ["pipe", "ignore", "ignore"],
  });
  owner.unref();
  owner.stdin?.on("error", () => undefined);
  // A pipe of a child is a socket to Node, and a socket keeps the process alive.
  if (owner.stdin !== null && "unref" in owner.stdin && typeof owner.stdin.unref === "function") owner.stdin.unref();
  process.env[OWNER_VARIABLE] = outer === undefined ? id : `${outer},${id}`;
  return owner;
}

function tell(owned: Owned): void {
  ensureOwner().stdin?.write(`${JSON.stringify(owned)}\n`);
}

/**
 * A new folder of mode 0700 below the system's folder for temporary files. It is removed at the latest when
 * this process is gone.
 */
export async function temporaryFolder(name: string): Promise<string> {
  const path = join(tmpdir(), `harborforge-${name}-${process.pid}-${randomBytes(6).toString("hex")}`);
  // Before it exists: this process may be killed between any two statements.
  tell({ folder: path });
  await mkdir(path, { mode: 0o700 });
  return path;
}

/** Databases of another server, whose names begin with `prefix`: they are dropped when this process is gone. */
export function ownDatabases(adminUrl: string, prefix: string): void {
  tell({ databases: { adminUrl, prefix } });
}

/** Wraps a function that starts a process, so that the process ends with this one. */
export function owning<Start extends (...args: never[]) => unknown>(start: Start): Start {
  const own = (...args: readonly unknown[]): unknown => {
    ensureOwner();
    const started: unknown = Reflect.apply(start, undefined, args.map(marked));
    const pid = pidOf(started);
    if (pid !== undefined) tell({ process: pid });
    return started;
  };
  const promised: unknown = Reflect.get(start, promisify.custom);
  // A function that returns a promise already is its own promised form.
  if (typeof promised === "function" && promised !== start) {
    Object.defineProperty(own, promisify.custom, { value: owning(promised as (...args: never[]) => unknown) });
  }
  // The same function for its callers; the compiler cannot see that.
  return own as unknown as Start;
}

/**
 * Options with an environment get the mark; without one, the process inherits the environment of this process
 * with it.
 */
function marked(argument: unknown): unknown {
  if (typeof argument !== "object" || argument === null || !("env" in argument)) return argument;
  return { ...argument, env: { ...Object(argument.env), [OWNER_VARIABLE]: process.env[OWNER_VARIABLE] } };
}

function pidOf(started: unknown): number | undefined {
  if (typeof started !== "object" || started === null) return undefined;
  if ("child" in started) return pidOf(started.child);
  return "pid" in started && typeof started.pid === "number" ? started.pid : undefined;
}

export const fork = owning(children.fork);
export const spawn = owning(children.spawn);
export const spawnSync = owning(children.spawnSync);
export const execFile = owning(children.execFile);
export const execFileSync = owning(children.execFileSync);
