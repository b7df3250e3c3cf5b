import { readdir, readFile, stat } from "node:fs/promises";
import { homedir, userInfo } from "node:os";
import { join, posix, win32 } from "node:path";
import { EmbeddedPostgresError, errorCode } from "./embedded-postgres-error.ts";
import { isFitForRoot, runsAsRoot } from "./server-account.ts";

/** The major version of the binaries: the only one that this release can serve. */
export const postgresMajor = "18";

/** The data folder for root, which the server account can reach. */
export const systemDataDir = "/var/lib/harborforge-agents";

/** The paths in a data folder. */
export interface DataFolder {
  readonly path: string;
  /** The cluster, owned by the server account, mode 0700. It appears here only when it is complete. */
  readonly cluster: string;
  /** The password of the database user, mode 0600, owned by the user who runs the service. */
  readonly password: string;
  readonly lock: string;
  /** The process id of the lock's holder, for error messages of others. */
  readonly owner: string;
  /** The output of PostgreSQL before its own log is open. */
  readonly startLog: string;
  /** Copies of the binaries, one folder for each version, if the installed ones do not run in place. */
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

/** The beginning of the names of folders in which a cluster is created. The rest is random. */
export const unfinishedPrefix = "unfinished-";

const ourNames = new Set(["postgresql", "password", "password.new", "lock", "owner.pid", "start.log", "software"]);

/** A start creates the lock first. With it, our other names come from an interrupted start; without it, from other programs. */
function isOursOrEmpty(names: string[]): boolean {
  // The root of a volume has lost+found.
  const relevant = names.filter((name) => name !== "lost+found");
  if (relevant.length === 0 || relevant.includes("postgresql")) return true;
  return relevant.includes("lock") && relevant.every((name) => ourNames.has(name) || name.startsWith(unfinishedPrefix));
}

/** Files that PostgreSQL needs to start. A killed `initdb` leaves a folder without some of them. */
const essential = ["PG_VERSION", "global/pg_control", "pg_hba.conf", "postgresql.conf", "base", "pg_wal"];

/**
 * Checks whether the folder can be used. Changes nothing.
 *
 * @returns the uid that owns the cluster in it; undefined if there is none yet
 * @throws EmbeddedPostgresError `FOREIGN_FOLDER`, `INCOMPLETE_CLUSTER`, `WRONG_VERSION`
 */
export async function inspect(folder: DataFolder): Promise<{ ownerUid: number } | undefined> {
  const names = await entries(folder.path);
  if (names.includes("PG_VERSION")) {
    const version = (await readIfThere(join(folder.path, "PG_VERSION")))?.trim() || "unknown";
    throw new EmbeddedPostgresError(
      version === postgresMajor ? "FOREIGN_FOLDER" : "WRONG_VERSION",
      `The data folder ${folder.path} is itself a PostgreSQL ${version} cluster, which this service did not create. ` +
        "Choose another folder with HARBORFORGE_DATA_DIR, or run that cluster yourself and set DATABASE_URL.",
    );
  }
  if (!isOursOrEmpty(names)) {
    throw new EmbeddedPostgresError(
      "FOREIGN_FOLDER",
      `The folder ${folder.path} is not empty and has no data of this service (it has ${names.sort().slice(0, 3).join(", ")}). ` +
        "Choose an empty or a new folder with HARBORFORGE_DATA_DIR.",
    );
  }

  const inside = await entries(folder.cluster);
  if (inside.length === 0) return undefined;
  const version = (await readIfThere(join(folder.cluster, "PG_VERSION")))?.trim();
  if (version && version !== postgresMajor) {
    throw new EmbeddedPostgresError(
      "WRONG_VERSION",
      `The data folder ${folder.path} has a PostgreSQL ${version} cluster, and this release runs PostgreSQL ${postgresMajor}. ` +
        `Move the data with pg_dumpall of PostgreSQL ${version} into a new folder, or start the release that wrote it.`,
    );
  }
  for (const name of essential) {
    if (!(await exists(join(folder.cluster, name)))) {
      throw new EmbeddedPostgresError(
        "INCOMPLETE_CLUSTER",
        `The PostgreSQL cluster in ${folder.cluster} is incomplete (${name} is missing). ` +
          "Restore it from a backup, or move that folder away to start with an empty database.",
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
      `${path} is not a folder. Choose another path with HARBORFORGE_DATA_DIR.`,
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

/** From the system's list of users. A container may run as a uid that is not in it. */
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
 * The default data folder: the user's (`$XDG_DATA_HOME` or `~/.local/share`, Application Support on macOS, `%LOCALAPPDATA%` on
 * Windows). For root it is the system's, unless the server account can enter root's home.
 */
export function defaultDataDir(env: Readonly<Record<string, string | undefined>>, host: Host = thisHost()): string {
  const { HOME, XDG_DATA_HOME, LOCALAPPDATA } = env;
  // A relative HOME would make the place depend on the working directory.
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
