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
import { asServer, folderThroughCwd, lastErrorLine } from "./postgres-process.ts";
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

/** The recovery of a large log takes time. A start without progress ends after this. */
const startDeadlineMs = 300_000;

/** The time in which backends of a killed postmaster notice that and end. */
const orphansDeadlineMs = 15_000;

/** Fast shutdown writes the shared buffers to disk. */
const fastShutdownMs = 20_000;

/** Immediate shutdown kills processes that do not end within 5 s. */
const immediateShutdownMs = 10_000;

export interface Postmaster {
  readonly pid: number;
  readonly port: number;
}

/**
 * The running postmaster of this cluster, if a killed process left one. Waits while it starts or stops.
 *
 * @throws EmbeddedPostgresError `START_FAILED` if it does neither in time
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
        `The PostgreSQL left running on ${cluster} (process ${file.pid}) is ${file.status || "stuck"}. ` +
          `Look at its log in ${join(cluster, "log")}, or stop it and start again.`,
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
 * Starts the postmaster and returns when it accepts connections.
 *
 * @throws EmbeddedPostgresError `START_FAILED` with the error of PostgreSQL
 */
export async function startPostmaster(start: PostmasterStart): Promise<Postmaster> {
  const { cluster } = start.folder;
  const orphansDeadline = Date.now() + orphansDeadlineMs;
  for (let attempt = 1; ; attempt += 1) {
    const left = await readPostmasterFile(cluster);
    if (left && isAlive(left.pid)) await disarmLeftPostmasterFile(cluster, start.account);
    const outcome = await startOnce(start);
    if ("port" in outcome) return outcome;
    // Another program can take the free port before PostgreSQL does.
    if (/could not bind|could not create any TCP\/IP sockets/.test(outcome.output) && attempt < 5) continue;
    if (/shared memory block .* still in use/.test(outcome.output) && Date.now() < orphansDeadline) {
      await delay(100);
      continue;
    }
    throw new EmbeddedPostgresError(
      "START_FAILED",
      `PostgreSQL did not start on ${start.folder.path} (${lastErrorLine(outcome.output) ?? outcome.ended}). ` +
        `Its log is in ${join(cluster, "log")} and ${start.folder.startLog}.`,
    );
  }
}

async function startOnce(start: PostmasterStart): Promise<Postmaster | { output: string; ended: string }> {
  const { account, folder, signal } = start;
  const began = Date.now();
  const port = await freePort();
  const reachable = !account || canEnter(account, folder.cluster);
  // A file, not a pipe: PostgreSQL keeps running if this process is killed, and a pipe would break then.
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
        // A session of its own: the Ctrl-C of a terminal reaches only this process, which stops PostgreSQL after its clients.
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
    if (ended !== undefined) return { output: await outputSince(folder, began), ended };
    if (pid !== undefined && (signal?.aborted || Date.now() > deadline)) {
      await stopPostmaster(folder.cluster, { pid, port });
      signal?.throwIfAborted();
      return { output: "", ended: `it was not ready after ${startDeadlineMs / 1000} s` };
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

/** The output of PostgreSQL: in the file of its start, and then in its log. */
async function outputSince(folder: DataFolder, since: number): Promise<string> {
  let output = await readFile(folder.startLog, "utf8");
  const logs = join(folder.cluster, "log");
  for (const name of await readdir(logs).catch(() => [])) {
    const path = join(logs, name);
    if ((await stat(path)).mtimeMs >= since - 1_000) output += (await readFile(path, "utf8")).slice(-8_000);
  }
  return output;
}

/**
 * Stops the postmaster by a fast shutdown. If that takes too long, by an immediate one, after which the next start recovers the data.
 * Returns when the process is gone.
 *
 * @throws EmbeddedPostgresError `STOP_FAILED`
 */
export async function stopPostmaster(cluster: string, { pid, port }: Postmaster): Promise<void> {
  // Send signals only while the process id belongs to this postmaster.
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
    `PostgreSQL (process ${pid}) on ${cluster} does not stop. End that process yourself: the next start recovers the data.`,
  );
}

async function sendSignal(pid: number, name: "SIGINT" | "SIGQUIT"): Promise<void> {
  if (process.platform === "win32") {
    // Windows has no signals. pg_ctl uses PostgreSQL's own channel.
    await promisify(execFile)((await installedPrograms()).pgCtl, ["kill", name.slice(3), `${pid}`]);
    return;
  }
  try {
    process.kill(pid, name);
  } catch (error) {
    if (errorCode(error) !== "ESRCH") {
      throw new EmbeddedPostgresError(
        "STOP_FAILED",
        `PostgreSQL (process ${pid}) cannot be stopped (${messageOf(error)}). End that process yourself.`,
        { cause: error },
      );
    }
  }
}
