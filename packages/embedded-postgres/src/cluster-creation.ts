import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { constants } from "node:fs";
import { chmod, mkdir, open, readdir, readFile, rename, rm, rmdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { PostgresBinaries } from "./binaries.ts";
import { type DataFolder, unfinishedPrefix } from "./data-folder.ts";
import { EmbeddedPostgresError, errorCode, messageOf } from "./embedded-postgres-error.ts";
import { asServer, folderThroughCwd, lastErrorLine } from "./postgres-process.ts";
import { canEnter, type ServerAccount } from "./server-account.ts";

/** The database user that owns everything. Its password is in a file beside the cluster. */
export const databaseUser = "harborforge";

/** An unfinished folder of this age is not in use, on systems without `/proc`. */
const abandonedAfterMs = 600_000;

export interface ClusterCreation {
  readonly folder: DataFolder;
  readonly binaries: PostgresBinaries;
  readonly account: ServerAccount | undefined;
  readonly password: string;
  /** False only for clusters that may be lost. */
  readonly durable: boolean;
  readonly signal: AbortSignal | undefined;
}

/**
 * Creates the cluster in a folder beside its place, and moves it there when it is complete and on disk. If this process is killed, a
 * later start finds no half-made cluster.
 *
 * @throws EmbeddedPostgresError `INIT_FAILED`
 */
export async function createCluster(creation: ClusterCreation): Promise<void> {
  const { folder, account } = creation;
  creation.signal?.throwIfAborted();
  const work = join(folder.path, `${unfinishedPrefix}${randomBytes(6).toString("hex")}`);
  const made = join(work, "postgresql");
  try {
    await mkdir(work);
    await chmod(work, account ? 0o711 : 0o700);
    await mkdir(made, { mode: 0o700 });
    await giveFolder(made, account);
    await writePasswordFile(passwordFile(work), creation.password, account);
    await initdb(creation, work, made);
    // Windows does not rename over an empty folder.
    await rmdir(folder.cluster).catch((error) => {
      if (errorCode(error) !== "ENOENT") throw error;
    });
    await rename(made, folder.cluster);
    if (creation.durable) await syncFolder(folder.path);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** `clearUnfinished` looks for this name in the command lines of processes, to find an `initdb` that still runs. */
function passwordFile(work: string): string {
  return join(work, `${basename(work)}.password`);
}

/** Through a handle: the path could lead to another folder by now. */
async function giveFolder(path: string, account: ServerAccount | undefined): Promise<void> {
  if (!account) return;
  const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    await handle.chown(account.uid, account.gid);
  } finally {
    await handle.close();
  }
}

async function writePasswordFile(path: string, password: string, account: ServerAccount | undefined): Promise<void> {
  const handle = await open(path, "wx", 0o600);
  try {
    await handle.writeFile(`${password}\n`);
    if (account) await handle.chown(account.uid, account.gid);
  } finally {
    await handle.close();
  }
}

/** Writes the entries of a folder to disk. Windows cannot open folders, and does not need it. */
export async function syncFolder(path: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(path, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function initdb(creation: ClusterCreation, work: string, made: string): Promise<void> {
  const { account, binaries, signal } = creation;
  const reachable = !account || canEnter(account, made);
  const args = [
    ...["-D", reachable ? made : folderThroughCwd],
    ...["-U", databaseUser, "--pwfile", join("..", basename(passwordFile(work)))],
    "--auth=scram-sha-256",
    ...["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"],
    ...["--data-checksums", "--no-instructions"],
    // initdb writes all files to disk itself, in about a tenth of a second.
    ...(creation.durable ? [] : ["--no-sync"]),
  ];
  // Not detached: the Ctrl-C of a terminal may end it, since it leaves nothing that matters.
  const child = spawn(binaries.initdb, args, { ...asServer(account), cwd: made, stdio: ["ignore", "pipe", "pipe"] });
  const abort = () => child.kill("SIGTERM");
  signal?.addEventListener("abort", abort);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output = (output + text).slice(-8_000);
    });
  }
  try {
    const [code, killedBy] = await once(child, "close");
    signal?.throwIfAborted();
    if (code !== 0) throw new Error(lastErrorLine(output) ?? `it ended with ${code ?? killedBy}`);
  } catch (error) {
    signal?.throwIfAborted();
    throw new EmbeddedPostgresError(
      "INIT_FAILED",
      `PostgreSQL could not create its cluster in ${creation.folder.path} (${messageOf(error)}). ` +
        "Fix that and start again. No incomplete cluster was left.",
      { cause: error },
    );
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

/**
 * Removes unfinished folders of killed processes. The lock on the data folder shows that none of these processes runs. Their `initdb`
 * can outlive them for a moment and would write the folder again, so a folder in use is left for the next start.
 */
export async function clearUnfinished(folder: DataFolder): Promise<void> {
  const names = (await readdir(folder.path)).filter((name) => name.startsWith(unfinishedPrefix));
  for (const name of names) {
    const path = join(folder.path, name);
    if (!(await isInUse(path))) await rm(path, { recursive: true, force: true });
  }
}

async function isInUse(path: string): Promise<boolean> {
  if (process.platform !== "linux") return Date.now() - (await stat(path)).mtimeMs < abandonedAfterMs;
  const name = basename(path);
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (commandLine.includes(name)) return true;
  }
  return false;
}
