import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { open, readFile, realpath, rename } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { readIfThere } from "./data-folder.ts";
import { errorCode } from "./embedded-postgres-error.ts";
import { folderThroughCwd } from "./postgres-process.ts";
import type { ServerAccount } from "./server-account.ts";

/** The content of `postmaster.pid`. The lines are defined in PostgreSQL's `miscadmin.h`. */
export interface PostmasterFile {
  readonly pid: number;
  /** Undefined until the server has chosen it. */
  readonly port: number | undefined;
  /** `starting`, `ready` or `stopping`; empty before that. */
  readonly status: string;
}

const portLine = 3;
const statusLine = 7;

export async function readPostmasterFile(cluster: string): Promise<PostmasterFile | undefined> {
  const text = await readIfThere(join(cluster, "postmaster.pid"));
  if (text === undefined) return undefined;
  const lines = text.split("\n");
  const pid = Number(lines[0]);
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined;
  const port = Number(lines[portLine]);
  return {
    pid,
    port: Number.isSafeInteger(port) && port > 0 ? port : undefined,
    status: lines[statusLine]?.trim() ?? "",
  };
}

/** Whether the process exists, including processes of other users and zombies. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) === "EPERM";
  }
}

/**
 * Whether the process of `postmaster.pid` is the postmaster of this cluster. After a crash, the process id may belong to another
 * program. The command line decides: everybody may read it (the working directory is hidden from root in a container without the right to
 * trace), and it is empty for a process that has ended. On Windows, the process only has to exist.
 */
export async function isPostmaster(cluster: string, file: PostmasterFile): Promise<boolean> {
  if (!isAlive(file.pid)) return false;
  if (process.platform === "win32") return true;
  if (process.platform !== "linux") {
    const line = await commandLineByPs(file.pid);
    return line.includes("postgres") && line.includes(`-D ${cluster}`);
  }
  const args = await commandLine(file.pid);
  if (args === undefined) return true;
  if (basename(args[0] ?? "") !== "postgres") return false;
  const folder = args[args.indexOf("-D") + 1];
  if (folder === folderThroughCwd) return file.port === undefined || args.includes(`port=${file.port}`);
  return folder !== undefined && (await sameFolder(folder, cluster));
}

/** Undefined without `/proc`; empty if the process is gone. */
async function commandLine(pid: number): Promise<string[] | undefined> {
  try {
    return (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0");
  } catch (error) {
    const code = errorCode(error);
    if (code !== "ENOENT" && code !== "ESRCH") throw error;
    return (await readIfThere("/proc/self/stat")) === undefined ? undefined : [];
  }
}

async function commandLineByPs(pid: number): Promise<string> {
  try {
    return (await promisify(execFile)("ps", ["-ww", "-o", "args=", "-p", `${pid}`])).stdout;
  } catch {
    // The exit code says that there is no such process.
    return "";
  }
}

async function sameFolder(one: string, other: string): Promise<boolean> {
  try {
    return (await realpath(one)) === (await realpath(other));
  } catch {
    return false;
  }
}

/**
 * Makes an old `postmaster.pid` harmless. PostgreSQL does not start if the file has the id of any running process of its user. It
 * ignores only the id of its parent, so the parent, this process, writes its own id there. Do not delete the file: it also names the
 * shared memory by which PostgreSQL makes sure that no backend of the dead postmaster still writes.
 */
export async function disarmLeftPostmasterFile(cluster: string, account: ServerAccount | undefined): Promise<void> {
  const path = join(cluster, "postmaster.pid");
  const text = await readIfThere(path);
  if (text === undefined) return;
  const [, ...rest] = text.split("\n");
  const next = join(dirname(path), `postmaster.pid.${randomBytes(6).toString("hex")}`);
  // Exclusive, and ownership through the handle: for root, the folder belongs to another user.
  const file = await open(next, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    await file.writeFile([`${process.pid}`, ...rest].join("\n"));
    if (account) await file.chown(account.uid, account.gid);
  } finally {
    await file.close();
  }
  await rename(next, path);
}
