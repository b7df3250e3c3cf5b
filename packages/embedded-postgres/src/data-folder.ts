import { readdir, readFile, stat } from "node:fs/promises";
import { homedir, userInfo } from "node:os";
import { join, posix, win32 } from "node:path";
import { EmbeddedPostgresError, errorCode } from "./embedded-postgres-error.ts";
import { isFitForRoot, runsAsRoot } from "./server-account.ts";

/** The only major version this release can serve: the one its binaries are. */
export const postgresMajor = "18";

/** Where root keeps what another account must reach. */
export const systemDataDir = "/var/lib/harborforge-agents";

/** What lies where in a data folder. */
export interface DataFolder {
  readonly path: string;
  /** The cluster itself, owned by the account PostgreSQL runs as, mode 0700. It appears here complete or not at all. */
  readonly cluster: string;
  /** The password of the database user, mode 0600, owned by whoever runs the service. */
  readonly password: string;
  readonly lock: string;
  /** The process id of who holds the lock; for the message to whom it is refused. */
  readonly owner: string;
  /** What PostgreSQL said before its own log was open. */
  readonly startLog: string;
  /** Copies of the binaries, one folder a version, where the installed ones cannot be used in place. */
  readonly software: string;
}

export function dataFolder(path: string): DataFolder {
  return {
    path,
    cluster: join(path, "postgresql"),
    password: join(path, "password"),
    lock: join(path, "lock"),
    owner: join(path, "owner.pid"),
    startLog: join(path, "start.log"),
    software: join(path, "software"),
  };
}

/** Folders in which a cluster is being made; the rest of the name is random. */
export const unfinishedPrefix = "unfinished-";

const ourNames = new Set(["postgresql", "password", "password.new", "lock", "owner.pid", "start.log", "software"]);

/** The lock comes first: with it, our names alone are a start that was cut short; without it, they are a coincidence. */
function isOursOrEmpty(names: string[]): boolean {
  // A volume's own lost+found does not make it somebody's.
  const telling = names.filter((name) => name !== "lost+found");
  if (telling.length === 0 || telling.includes("postgresql")) return true;
  return telling.includes("lock") && telling.every((name) => ourNames.has(name) || name.startsWith(unfinishedPrefix));
}

/** What PostgreSQL cannot start without; `initdb` leaves a folder without some of them when it is killed. */
const essential = ["PG_VERSION", "global/pg_control", "pg_hba.conf", "postgresql.conf", "base", "pg_wal"];

/**
 * Looks, without touching anything, whether the folder can be used.
 * @returns the uid that owns the cluster in it, or undefined if there is none yet.
 * @throws EmbeddedPostgresError `FOREIGN_FOLDER`, `INCOMPLETE_CLUSTER`, `WRONG_VERSION`
 */
export async function inspect(folder: DataFolder): Promise<{ ownerUid: number } | undefined> {
  const names = await entries(folder.path);
  if (names.includes("PG_VERSION")) {
    const version = (await readIfThere(join(folder.path, "PG_VERSION")))?.trim() || "unknown";
    throw new EmbeddedPostgresError(
      version === postgresMajor ? "FOREIGN_FOLDER" : "WRONG_VERSION",
      `The data folder ${folder.path} is itself a PostgreSQL ${version} cluster, which this service did not make; ` +
        "choose another folder with HARBORFORGE_DATA_DIR, or serve that cluster yourself and set DATABASE_URL.",
    );
  }
  if (!isOursOrEmpty(names)) {
    throw new EmbeddedPostgresError(
      "FOREIGN_FOLDER",
      `The folder ${folder.path} is not empty and holds no data of this service (it has ${names.sort().slice(0, 3).join(", ")}); ` +
        "choose an empty or a new folder with HARBORFORGE_DATA_DIR.",
    );
  }

  const inside = await entries(folder.cluster);
  if (inside.length === 0) return undefined;
  const version = (await readIfThere(join(folder.cluster, "PG_VERSION")))?.trim();
  if (version && version !== postgresMajor) {
    throw new EmbeddedPostgresError(
      "WRONG_VERSION",
      `The data folder ${folder.path} holds a PostgreSQL ${version} cluster and this release runs PostgreSQL ${postgresMajor}; ` +
        `move the data with pg_dumpall of PostgreSQL ${version} into a new folder, or start the release that wrote it.`,
    );
  }
  for (const name of essential) {
    if (!(await exists(join(folder.cluster, name)))) {
      throw new EmbeddedPostgresError(
        "INCOMPLETE_CLUSTER",
        `The PostgreSQL cluster in ${folder.cluster} is incomplete (it lacks ${name}); ` +
          "restore it from a backup, or move that folder away to begin with an empty database.",
      );
    }
  }
  return { ownerUid: (await stat(folder.cluster)).uid };
}

async function entries(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    if (errorCode(error) !== "ENOTDIR") throw error;
    throw new EmbeddedPostgresError(
      "FOREIGN_FOLDER",
      `${path} is not a folder; choose another path with HARBORFORGE_DATA_DIR.`,
    );
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}

export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

export interface Host {
  readonly platform: NodeJS.Platform;
  readonly home: string;
  readonly isRoot: boolean;
  readonly isFitForRoot: (folder: string) => boolean;
}

/** By the system's list of users; a container may run under a number that is not in it. */
function homeOfUser(): string {
  try {
    return userInfo().homedir;
  } catch {
    return homedir();
  }
}

function thisHost(): Host {
  return {
    platform: process.platform,
    home: homeOfUser(),
    isRoot: runsAsRoot(),
    isFitForRoot,
  };
}

/**
 * Where the data lies if nobody says otherwise: the user's data folder (`$XDG_DATA_HOME` or `~/.local/share`, Application
 * Support on macOS, `%LOCALAPPDATA%` on Windows). For root, whose home PostgreSQL's account can rarely enter, the
 * system's, unless the home is open to it.
 */
export function defaultDataDir(env: Readonly<Record<string, string | undefined>>, host: Host = thisHost()): string {
  const { HOME, XDG_DATA_HOME, LOCALAPPDATA } = env;
  // A relative one, or none, would put the data wherever the program happens to be started.
  const home = HOME !== undefined && (posix.isAbsolute(HOME) || win32.isAbsolute(HOME)) ? HOME : host.home;
  const name = "harborforge-agents";
  if (host.platform === "win32") return win32.join(LOCALAPPDATA || win32.join(home, "AppData", "Local"), name);
  if (host.platform === "darwin") {
    const ofUser = posix.join(home, "Library", "Application Support", name);
    return host.isRoot && !host.isFitForRoot(ofUser) ? `/Library/Application Support/${name}` : ofUser;
  }
  // The XDG convention tells programs to ignore a relative path.
  const xdg = XDG_DATA_HOME && posix.isAbsolute(XDG_DATA_HOME) ? XDG_DATA_HOME : undefined;
  const ofUser = posix.join(xdg ?? posix.join(home, ".local", "share"), name);
  return host.isRoot && !host.isFitForRoot(ofUser) ? systemDataDir : ofUser;
}
