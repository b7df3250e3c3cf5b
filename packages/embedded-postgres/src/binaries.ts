import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, copyFile, mkdir, readdir, readFile, rename, rm, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join, relative } from "node:path";
import { promisify } from "node:util";
import { type DataFolder, readIfThere } from "./data-folder.ts";
import { EmbeddedPostgresError, errorCode, messageOf } from "./embedded-postgres-error.ts";
import { asServer } from "./postgres-process.ts";
import { canEnter, type ServerAccount } from "./server-account.ts";

/** PostgreSQL's programs, somewhere the account that runs them can reach. */
export interface PostgresBinaries {
  readonly postgres: string;
  readonly initdb: string;
  readonly pgCtl: string;
}

interface Installed {
  /** The folder with `bin`, `lib` and `share`. */
  readonly native: string;
  /** Version of the package; the name of a copy, so that each release has its own. */
  readonly version: string;
}

/** For data folders that the account cannot enter by their path either. Whoever empties a cache takes nothing away for good. */
const systemCopies = "/var/cache/harborforge-agents";

/**
 * The installed binaries if `account` can run them where they are, else a copy, made once a version. They cannot be run
 * in place when they lie below a folder only root may enter, or when the package's install script, which makes the links
 * between its libraries, was not run.
 * @throws EmbeddedPostgresError `NO_BINARIES`, `UNREACHABLE`
 */
export async function usableBinaries(
  folder: DataFolder,
  account: ServerAccount | undefined,
): Promise<PostgresBinaries> {
  const installed = await findInstalled();
  const inPlace = programs(installed.native);
  if ((await whyNotRunning(inPlace, account)) === undefined) return inPlace;

  const place = account && !canEnter(account, folder.path) ? systemCopies : folder.software;
  const target = join(place, `postgresql-${installed.version}`);
  const copy = programs(target);
  // A copy that does not run was cut short, by a power failure at the worst moment.
  if ((await whyNotRunning(copy, account)) !== undefined) {
    await rm(target, { recursive: true, force: true });
    await copyTo(target, installed);
  }
  const refusal = await whyNotRunning(copy, account);
  if (refusal === undefined) return copy;
  if (account && errorCode(refusal) === "EACCES") {
    throw new EmbeddedPostgresError(
      "UNREACHABLE",
      `PostgreSQL does not run as root, and the user ${account.name} cannot run its programs in ${place}; ` +
        `let others enter that folder (chmod a+x), start the service as an ordinary user, or set DATABASE_URL.`,
      { cause: refusal },
    );
  }
  throw new EmbeddedPostgresError(
    "NO_BINARIES",
    `The PostgreSQL that comes with this service does not run on this machine (${messageOf(refusal).trim()}); ` +
      "set DATABASE_URL to a PostgreSQL of your own.",
    { cause: refusal },
  );
}

/** Forgets copies of other versions. Not to be called while a server started from one may be running. */
export async function removeOtherCopies(folder: DataFolder, inUse: PostgresBinaries): Promise<void> {
  const current = basename(dirname(dirname(inUse.postgres)));
  for (const name of await readdir(folder.software).catch(() => [])) {
    if (name !== current) await rm(join(folder.software, name), { recursive: true, force: true });
  }
}

async function findInstalled(): Promise<Installed> {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  try {
    const root = dirname(dirname(createRequire(import.meta.url).resolve(name)));
    const manifest: unknown = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
    const version = typeof manifest === "object" && manifest !== null && "version" in manifest ? manifest.version : "";
    return { native: join(root, "native"), version: String(version) };
  } catch (error) {
    throw new EmbeddedPostgresError(
      "NO_BINARIES",
      `The PostgreSQL for this platform (${name}) is not installed; ` +
        "run npm ci without --omit=optional, or set DATABASE_URL to a PostgreSQL of your own.",
      { cause: error },
    );
  }
}

/** The programs of this platform as installed, whether or not they can be run from there. */
export async function installedPrograms(): Promise<PostgresBinaries> {
  return programs((await findInstalled()).native);
}

function programs(native: string): PostgresBinaries {
  const ending = process.platform === "win32" ? ".exe" : "";
  const program = (name: string) => join(native, "bin", `${name}${ending}`);
  return { postgres: program("postgres"), initdb: program("initdb"), pgCtl: program("pg_ctl") };
}

const run = promisify(execFile);

/** Tries, as permissions, the dynamic linker and mount options together are more than one can judge by looking. */
async function whyNotRunning(binaries: PostgresBinaries, account: ServerAccount | undefined): Promise<unknown> {
  try {
    await run(binaries.postgres, ["--version"], { ...asServer(account), cwd: "/" });
    await run(binaries.initdb, ["--version"], { ...asServer(account), cwd: "/" });
    return undefined;
  } catch (error) {
    return error;
  }
}

/** Copies beside the target and renames, so that others see all of it or nothing. Whoever is first wins. */
async function copyTo(target: string, installed: Installed): Promise<void> {
  await makeOpenFolder(dirname(target));
  const work = `${target}.${randomBytes(6).toString("hex")}`;
  try {
    await copyTree(installed.native, work);
    await linkLibraries(installed.native, work);
    await rename(work, target);
  } catch (error) {
    if (errorCode(error) !== "ENOTEMPTY" && errorCode(error) !== "EEXIST") throw error;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function makeOpenFolder(path: string): Promise<void> {
  // Not what was there before: who may pass there is its owner's choice.
  if ((await mkdir(path, { recursive: true })) !== undefined) await chmod(path, 0o711);
}

async function copyTree(from: string, to: string): Promise<void> {
  await mkdir(to);
  // Explicit, as neither the mask of this process nor that of the install may keep the account out.
  await chmod(to, 0o755);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const source = join(from, entry.name);
    const copy = join(to, entry.name);
    if (entry.isDirectory()) {
      await copyTree(source, copy);
    } else if (entry.isFile() && !entry.name.endsWith(".a")) {
      await copyFile(source, copy);
      await chmod(copy, basename(from) === "bin" || entry.name.includes(".so") ? 0o755 : 0o644);
    }
  }
}

/** The packages of npm cannot hold links; this one lists them in a file, with paths from the package's root. */
async function linkLibraries(native: string, copy: string): Promise<void> {
  const list: unknown = JSON.parse((await readIfThere(join(native, "pg-symlinks.json"))) ?? "[]");
  if (!Array.isArray(list)) return;
  for (const link of list) {
    const { source, target }: { source?: unknown; target?: unknown } = link ?? {};
    if (typeof source !== "string" || typeof target !== "string") continue;
    await symlink(relative(dirname(target), source), join(copy, relative("native", target)));
  }
}
