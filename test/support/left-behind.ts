import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { isPostmaster, readPostmasterFile } from "../../packages/embedded-postgres/src/postmaster-file.ts";

/** A process, by its id, which may be reused, and its start time. */
export interface KnownProcess {
  readonly pid: number;
  readonly began: string;
}

/** Undefined for a process that is gone, or has ended and was not waited for. */
export function knownProcess(pid: number): KnownProcess | undefined {
  const began = process.platform === "linux" ? beganOnLinux(pid) : beganByPs(pid);
  return began === undefined ? undefined : { pid, began };
}

export function isStillThere({ pid, began }: KnownProcess): boolean {
  return knownProcess(pid)?.began === began;
}

/** All processes whose initial environment has a variable that passes a test. Linux only; none elsewhere. */
export function processesMarked(variable: string, isMeant: (value: string) => boolean): number[] {
  return pids().filter((pid) => {
    const entry = readText(`/proc/${pid}/environ`)
      .split("\0")
      .find((one) => one.startsWith(`${variable}=`));
    return entry !== undefined && isMeant(entry.slice(variable.length + 1));
  });
}

/** Programs of PostgreSQL that work in a folder: servers, and initdb. They inherit no environment. */
export async function postgresIn(folder: string): Promise<number[]> {
  const found = new Set<number>();
  for (const cluster of await clustersIn(folder)) {
    const file = await readPostmasterFile(cluster);
    if (file !== undefined && (await isPostmaster(cluster, file))) found.add(file.pid);
  }
  // Those that have not written their file yet.
  for (const pid of pids()) {
    const [program = "", ...args] = readText(`/proc/${pid}/cmdline`).split("\0");
    if (!["postgres", "initdb"].includes(basename(program))) continue;
    if ([...args, cwdOf(pid)].some((path) => path === folder || path.startsWith(`${folder}/`))) found.add(pid);
  }
  return [...found];
}

/** Deep enough for a folder of a test within one of its file; deeper files of a cluster are data. */
const DEEPEST = 4;
const NEVER_WITHIN: ReadonlySet<string> = new Set(["base", "global", "log", "node_modules", "pg_wal", "software"]);

/** Folders with a `postmaster.pid`, in a folder. */
export async function clustersIn(folder: string, depth = 0): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  if (entries.some(({ name }) => name === "postmaster.pid")) return [folder];
  if (depth === DEEPEST) return [];
  const within = entries.filter((entry) => entry.isDirectory() && !NEVER_WITHIN.has(entry.name));
  return (await Promise.all(within.map(({ name }) => clustersIn(join(folder, name), depth + 1)))).flat();
}

function pids(): number[] {
  if (process.platform !== "linux") return [];
  return readdirSync("/proc").flatMap((name) => (/^\d+$/.test(name) ? [Number(name)] : []));
}

/** Empty for a file that is gone, or not readable for us. */
function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function cwdOf(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return "";
  }
}

function beganOnLinux(pid: number): string | undefined {
  const stat = readText(`/proc/${pid}/stat`);
  // The name in parentheses may contain anything; the state is the first field after it, and the start the 20th
  // (proc(5)).
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return stat === "" || fields[0] === "Z" ? undefined : fields[19];
}

function beganByPs(pid: number): string | undefined {
  try {
    const began = execFileSync("ps", ["-o", "lstart=", "-p", `${pid}`], { encoding: "utf8" }).trim();
    return began === "" ? undefined : began;
  } catch {
    return undefined;
  }
}
