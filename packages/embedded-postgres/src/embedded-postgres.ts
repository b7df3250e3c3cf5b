import { randomBytes } from "node:crypto";
import { chmod, mkdir, open, realpath, rename, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { Client, type ClientConfig } from "pg";
import { removeOtherCopies, usableBinaries } from "./binaries.ts";
import { clearUnfinished, createCluster, databaseUser, syncFolder } from "./cluster-creation.ts";
import { type DataFolder, dataFolder, inspect, readIfThere, systemDataDir } from "./data-folder.ts";
import { EmbeddedPostgresError, errorCode, explained, messageOf } from "./embedded-postgres-error.ts";
import { type FolderLock, lockFolder } from "./folder-lock.ts";
import type { PostgresLog } from "./log-events.ts";
import { livingPostmaster, type Postmaster, startPostmaster, stopPostmaster } from "./postmaster.ts";
import { isPostmaster } from "./postmaster-file.ts";
import { canEnter, chooseServerAccount, runsAsRoot, type ServerAccount } from "./server-account.ts";
import type { ServerSettings } from "./server-settings.ts";

/** The database of the service. */
export const databaseName = "harborforge";

/** How often to check that the server runs. */
const watchMs = 1_000;

export interface EmbeddedPostgresOptions {
  /** The data folder. Created if it does not exist. */
  readonly dataDir: string;
  readonly log: EmbeddedPostgresLog;
  /** Settings of PostgreSQL. They override those of `server-settings.ts`. `fsync: "off"` is for clusters that may be lost. */
  readonly settings?: ServerSettings;
  /** Ends the start and undoes it. The promise rejects with the reason of the signal. */
  readonly signal?: AbortSignal;
}

/** Each line has the name of its event, one of `log-events.ts`, as its field `event`. */
export interface EmbeddedPostgresLog {
  info(fields: { readonly event: string }, message: string): void;
  warn(fields: { readonly event: string }, message: string): void;
}

export interface EmbeddedPostgres extends AsyncDisposable {
  /** The URL of the database, with the password. Valid until `stop`. */
  readonly connectionString: string;
  readonly dataDir: string;
  /** The version of the server, such as `18.4`. */
  readonly version: string;
  /** Whether the server was already running, started by a process that was killed. */
  readonly adopted: boolean;
  /** Process id of the server. */
  readonly pid: number;
  /** Fulfilled if the server ends before `stop` is called. It is not restarted. */
  readonly ended: Promise<void>;
  /**
   * Stops the server, adopted or not, and releases the data folder. Close its clients first: their connections break. May be called
   * again; all calls share one result.
   *
   * @throws EmbeddedPostgresError `STOP_FAILED`
   */
  stop(): Promise<void>;
}

/**
 * Serves the PostgreSQL cluster in `dataDir`. Creates it at the first start, recovers it after a crash, and adopts a server whose owner
 * was killed. Only one process can serve a folder.
 *
 * @throws EmbeddedPostgresError with a message for the person who starts the service
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const asked = resolve(options.dataDir);
  return await explained(asked, async () => {
    await inspect(dataFolder(asked));
    await makeFolder(asked);
    const folder = dataFolder(await realpath(asked));
    const lock = await lockFolder(folder);
    try {
      return await startLocked(folder, lock, options);
    } catch (error) {
      lock.release();
      throw error;
    }
  });
}

/** For root, the server account has to pass through the folder. Its files are private themselves. */
async function makeFolder(path: string): Promise<void> {
  const mode = runsAsRoot() ? 0o711 : 0o700;
  try {
    await mkdir(path, { mode });
  } catch (error) {
    if (errorCode(error) === "EEXIST") return;
    if (errorCode(error) !== "ENOENT" || dirname(path) === path) throw error;
    // One level at a time: on file systems without mkdir (/proc), Node's own recursion never ends.
    await makeFolder(dirname(path));
    await mkdir(path, { mode });
  }
  // Again, since a strict umask could lock the account out. Existing folders keep their permissions.
  await chmod(path, mode);
}

async function startLocked(
  folder: DataFolder,
  lock: FolderLock,
  { settings = {}, signal, ...options }: EmbeddedPostgresOptions,
): Promise<EmbeddedPostgres> {
  const log: PostgresLog = options.log;
  // Again: another process may have created the cluster before the lock was ours.
  const existing = await inspect(folder);
  const account = accountFor(folder, existing?.ownerUid);
  await clearUnfinished(folder);

  let postmaster = existing && (await livingPostmaster(folder.cluster, signal));
  const adopted = postmaster !== undefined;
  const password = existing ? await readPassword(folder) : await makePassword(folder);
  if (!postmaster) {
    const binaries = await usableBinaries(folder, account);
    if (!existing) {
      log.info({ event: "postgres.creating", dataDir: folder.path }, "creating a PostgreSQL cluster");
      await createCluster({ folder, binaries, account, password, durable: settings.fsync !== "off", signal });
    }
    postmaster = await startPostmaster({ folder, binaries, account, settings, signal });
    await removeOtherCopies(folder, binaries);
  }
  const server = postmaster;
  try {
    signal?.throwIfAborted();
    const version = await prepareDatabase(folder, server, password);
    const facts = { dataDir: folder.path, pid: server.pid, port: server.port, version, adopted };
    log.info({ event: "postgres.serving", ...facts }, "PostgreSQL is serving");
    return running(folder, lock, server, { password, version, adopted, log });
  } catch (error) {
    // An adopted server keeps running: if its password is not ours, the server may not be ours.
    if (!adopted) await stopPostmaster(folder.cluster, server);
    throw error;
  }
}

/** Undefined if PostgreSQL runs as the user of the service. */
function accountFor(folder: DataFolder, ownerUid: number | undefined): ServerAccount | undefined {
  if (!runsAsRoot()) {
    if (ownerUid === undefined || ownerUid === process.getuid?.() || process.platform === "win32") return undefined;
    throw new EmbeddedPostgresError(
      "NO_PERMISSION",
      `The PostgreSQL cluster in ${folder.cluster} belongs to another user (uid ${ownerUid}). ` +
        "Start the service as that user, or choose another folder with HARBORFORGE_DATA_DIR.",
    );
  }
  if (ownerUid === 0) {
    throw new EmbeddedPostgresError(
      "NO_PERMISSION",
      `The PostgreSQL cluster in ${folder.cluster} belongs to root, and PostgreSQL does not run as root. ` +
        "Give that folder and all files in it back to their former user (chown -R).",
    );
  }
  const account = chooseServerAccount(ownerUid);
  if (process.platform !== "linux" && !canEnter(account, folder.path)) {
    throw new EmbeddedPostgresError(
      "UNREACHABLE",
      `PostgreSQL does not run as root, and its user ${account.name} cannot enter ${folder.path}. ` +
        `Choose a folder that this user can enter with HARBORFORGE_DATA_DIR, such as ${systemDataDir}.`,
    );
  }
  return account;
}

/** Writes the password before the cluster exists, so that each cluster has one. */
async function makePassword(folder: DataFolder): Promise<string> {
  const password = randomBytes(32).toString("base64url");
  const next = `${folder.password}.new`;
  await rm(next, { force: true });
  const file = await open(next, "wx", 0o600);
  try {
    await file.writeFile(`${password}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(next, folder.password);
  await syncFolder(folder.path);
  return password;
}

async function readPassword(folder: DataFolder): Promise<string> {
  const password = (await readIfThere(folder.password))?.trim();
  if (password) return password;
  throw new EmbeddedPostgresError(
    "PASSWORD_LOST",
    `The file ${folder.password} with the password of the PostgreSQL cluster beside it is missing. Restore it from a backup.`,
  );
}

/** Creates the database of the service if it is missing. @returns the version of the server */
async function prepareDatabase(folder: DataFolder, server: Postmaster, password: string): Promise<string> {
  const config: ClientConfig = {
    host: "127.0.0.1",
    port: server.port,
    user: databaseUser,
    password,
    database: "postgres",
    connectionTimeoutMillis: 10_000,
    // Overrides PGSSLMODE and PGOPTIONS: this server is ours, on loopback, without TLS.
    ssl: false,
    options: "-c timezone=UTC",
  };
  const client = new Client(config);
  // A connection that breaks while idle emits an event. The next query fails by itself.
  client.on("error", () => undefined);
  try {
    await client.connect();
    const { rows } = await client.query<{ version: string; there: boolean }>(
      `SELECT current_setting('server_version') AS version,
              EXISTS (SELECT FROM pg_database WHERE datname = $1) AS there`,
      [databaseName],
    );
    const [row] = rows;
    if (!row) throw new Error("a query without conditions has a row");
    if (!row.there) await client.query(`CREATE DATABASE ${databaseName}`);
    return row.version;
  } catch (error) {
    if (errorCode(error) === "28P01") {
      throw new EmbeddedPostgresError(
        "PASSWORD_LOST",
        `PostgreSQL on ${folder.path} rejects the password in ${folder.password}. Restore that file from a backup.`,
        { cause: error },
      );
    }
    throw new EmbeddedPostgresError(
      "START_FAILED",
      `PostgreSQL runs on ${folder.path} (process ${server.pid}) but does not answer (${messageOf(error)}). ` +
        "Stop that process and start again.",
      { cause: error },
    );
  } finally {
    await client.end();
  }
}

function running(
  folder: DataFolder,
  lock: FolderLock,
  server: Postmaster,
  { password, version, adopted, log }: { password: string; version: string; adopted: boolean; log: PostgresLog },
): EmbeddedPostgres {
  const ended = Promise.withResolvers<void>();
  let stopping: Promise<void> | undefined;
  const watch = setInterval(async () => {
    const lives = await isPostmaster(folder.cluster, { ...server, status: "" }).catch(() => true);
    if (lives || stopping) return;
    clearInterval(watch);
    log.warn({ event: "postgres.ended", dataDir: folder.path, pid: server.pid }, "PostgreSQL ended by itself");
    ended.resolve();
  }, watchMs).unref();

  const stop = () => {
    stopping ??= (async () => {
      clearInterval(watch);
      try {
        await stopPostmaster(folder.cluster, server);
        log.info({ event: "postgres.stopped", dataDir: folder.path, pid: server.pid }, "PostgreSQL stopped");
      } finally {
        lock.release();
      }
    })();
    return stopping;
  };
  return {
    connectionString: `postgres://${databaseUser}:${password}@127.0.0.1:${server.port}/${databaseName}?sslmode=disable`,
    dataDir: folder.path,
    version,
    adopted,
    pid: server.pid,
    ended: ended.promise,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
