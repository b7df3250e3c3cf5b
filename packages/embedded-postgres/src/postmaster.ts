import { execFile, spawn } from "node:child_process";
import { constants } from "node:fs";
import { open, readdir, readFile, stat } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { installedPrograms, type PostgresBinaries } from "./binaries.ts";
import type { DataFolder } from "./data-folder.ts";
import { EmbeddedPostgresError, errorCode, messageOf } from "./embedded-postgres-error.ts";
import { asServer, folderThroughCwd, lastComplaint } from "./postgres-process.ts";
import {
  disarmLeftPostmasterFile,
  isAlive,
  isPostmaster,
  type PostmasterFile,
  readPostmasterFile,
} from "./postmaster-file.ts";
import { canEnter, type ServerAccount } from "./server-account.ts";
import { type ServerSettings, settingArguments } from "./server-settings.ts";

const pollMs = 10;

/** A cluster that was killed with a full log of changes takes its time; one that makes no progress at all ends here. */
const startDeadlineMs = 300_000;

/** For backends of a killed postmaster to notice and end. */
const orphansDeadlineMs = 15_000;

/** Fast shutdown writes what is only in memory, at most the shared buffers. */
const fastShutdownMs = 20_000;

/** Immediate shutdown kills what does not end within 5 s. */
const immediateShutdownMs = 10_000;

export interface Postmaster {
  readonly pid: number;
  readonly port: number;
}

/**
 * The living postmaster of this cluster, if a killed service left one: waits while it starts or, told to stop by its last
 * owner, stops.
 * @throws EmbeddedPostgresError `START_FAILED` if it does neither.
 */
export async function livingPostmaster(cluster: string, signal?: AbortSignal): Promise<Postmaster | undefined> {
  const deadline = Date.now() + startDeadlineMs;
  for (;;) {
    signal?.throwIfAborted();
    const file = await readPostmasterFile(cluster);
    if (!file || !(await isPostmaster(cluster, file))) return undefined;
    if (file.status === "ready" && file.port !== undefined) return { pid: file.pid, port: file.port };
    if (Date.now() > deadline) {
      throw new EmbeddedPostgresError(
        "START_FAILED",
        `The PostgreSQL left running on ${cluster} (process ${file.pid}) is ${file.status || "stuck"}; ` +
          `look at its log in ${join(cluster, "log")}, or stop it and start again.`,
      );
    }
    await delay(pollMs);
  }
}

export interface PostmasterStart {
  readonly folder: DataFolder;
  readonly binaries: PostgresBinaries;
  readonly account: ServerAccount | undefined;
  readonly settings: ServerSettings;
  readonly signal: AbortSignal | undefined;
}

/**
 * Starts the postmaster and returns when it takes connections.
 * @throws EmbeddedPostgresError `START_FAILED` with what PostgreSQL said.
 */
export async function startPostmaster(start: PostmasterStart): Promise<Postmaster> {
  const { cluster } = start.folder;
  const orphansDeadline = Date.now() + orphansDeadlineMs;
  for (let attempt = 1; ; attempt += 1) {
    const left = await readPostmasterFile(cluster);
    if (left && isAlive(left.pid)) await disarmLeftPostmasterFile(cluster, start.account);
    const outcome = await startOnce(start);
    if ("port" in outcome) return outcome;
    // Between finding a free port and taking it, somebody else can.
    if (/could not bind|could not create any TCP\/IP sockets/.test(outcome.said) && attempt < 5) continue;
    if (/shared memory block .* still in use/.test(outcome.said) && Date.now() < orphansDeadline) {
      await delay(100);
      continue;
    }
    throw new EmbeddedPostgresError(
      "START_FAILED",
      `PostgreSQL did not start on ${start.folder.path} (${lastComplaint(outcome.said) ?? outcome.ended}); ` +
        `its log is in ${join(cluster, "log")} and ${start.folder.startLog}.`,
    );
  }
}

async function startOnce(start: PostmasterStart): Promise<Postmaster | { said: string; ended: string }> {
  const { account, folder, signal } = start;
  const began = Date.now();
  const port = await freePort();
  const reachable = !account || canEnter(account, folder.cluster);
  // A file, not a pipe: PostgreSQL outlives us if we are killed, and a pipe would break then.
  const output = await open(
    folder.startLog,
    constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | (constants.O_NOFOLLOW ?? 0),
    0o600,
  );
  let ended: string | undefined;
  let pid: number | undefined;
  try {
    const child = spawn(
      start.binaries.postgres,
      ["-D", reachable ? folder.cluster : folderThroughCwd, ...settingArguments(start.settings, port)],
      {
        ...asServer(account),
        cwd: folder.cluster,
        // A session of its own: the Ctrl-C of a terminal reaches us alone, and we stop it when its clients are done.
        detached: true,
        stdio: ["ignore", output.fd, output.fd],
      },
    );
    child.once("error", (error) => {
      ended = error.message;
    });
    child.once("exit", (code, killedBy) => {
      ended = `it ended with ${code ?? killedBy}`;
    });
    child.unref();
    pid = child.pid;
  } finally {
    await output.close();
  }

  const deadline = began + startDeadlineMs;
  for (;;) {
    const file = await readPostmasterFile(folder.cluster);
    if (file && file.pid === pid && file.status === "ready") return { pid: file.pid, port };
    if (ended !== undefined) return { said: await whatItSaid(folder, began), ended };
    if (pid !== undefined && (signal?.aborted || Date.now() > deadline)) {
      await stopPostmaster(folder.cluster, { pid, port });
      signal?.throwIfAborted();
      return { said: "", ended: `it was not ready after ${startDeadlineMs / 1000} s` };
    }
    await delay(pollMs);
  }
}

/** A port that is free now. */
async function freePort(): Promise<number> {
  const probe = createServer();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  probe.once("error", reject).listen(0, "127.0.0.1", resolve);
  await promise;
  const address = probe.address();
  await new Promise((closed) => probe.close(closed));
  if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
  return address.port;
}

/** Before its log is open it speaks to the file we gave it, then to the log. */
async function whatItSaid(folder: DataFolder, since: number): Promise<string> {
  let said = await readFile(folder.startLog, "utf8");
  const logs = join(folder.cluster, "log");
  for (const name of await readdir(logs).catch(() => [])) {
    const path = join(logs, name);
    if ((await stat(path)).mtimeMs >= since - 1_000) said += (await readFile(path, "utf8")).slice(-8_000);
  }
  return said;
}

/**
 * Ends the postmaster: fast shutdown, and if that takes too long, immediate, after which the next start recovers. Returns
 * when the process is gone, at once if it was already.
 * @throws EmbeddedPostgresError `STOP_FAILED`
 */
export async function stopPostmaster(cluster: string, { pid, port }: Postmaster): Promise<void> {
  // Only as long as the number means this postmaster may it be sent anything.
  const file: PostmasterFile = { pid, port, status: "" };
  const isGone = async () => !(await isPostmaster(cluster, file));
  for (const [name, waitMs] of [
    ["SIGINT", fastShutdownMs],
    ["SIGQUIT", immediateShutdownMs],
  ] as const) {
    if (await isGone()) return;
    await sendSignal(pid, name);
    const deadline = Date.now() + waitMs;
    while (Date.now() < deadline) {
      if (await isGone()) return;
      await delay(pollMs);
    }
  }
  throw new EmbeddedPostgresError(
    "STOP_FAILED",
    `PostgreSQL (process ${pid}) on ${cluster} does not stop; end that process yourself, the next start recovers the data.`,
  );
}

async function sendSignal(pid: number, name: "SIGINT" | "SIGQUIT"): Promise<void> {
  if (process.platform === "win32") {
    // Windows has no signals; PostgreSQL has a channel of its own for them.
    await promisify(execFile)((await installedPrograms()).pgCtl, ["kill", name.slice(3), `${pid}`]);
    return;
  }
  try {
    process.kill(pid, name);
  } catch (error) {
    if (errorCode(error) !== "ESRCH") {
      throw new EmbeddedPostgresError(
        "STOP_FAILED",
        `PostgreSQL (process ${pid}) cannot be stopped (${messageOf(error)}); end that process yourself.`,
        { cause: error },
      );
    }
  }
}
