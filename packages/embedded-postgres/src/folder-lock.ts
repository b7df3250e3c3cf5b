import { rmSync, writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { type DataFolder, readIfThere } from "./data-folder.ts";
import { EmbeddedPostgresError, errorCode, messageOf } from "./embedded-postgres-error.ts";
import { isAlive } from "./postmaster-file.ts";

/** SQLITE_BUSY: another process holds the lock. */
const sqliteBusy = 5;

/** How long a rejected process waits until the holder has written its process id. */
const ownerWaitMs = 300;

export interface FolderLock {
  release(): void;
}

/**
 * Makes sure that one process serves a data folder. The lock is one of the kernel on a file. Exactly one of several processes gets it,
 * and it ends with that process, however that ends, so a lock is never stale. Node has no locks on files, but its SQLite takes one for an
 * exclusive transaction, which stays open and writes nothing. An advisory lock of PostgreSQL does not help: there is no PostgreSQL at
 * the first start.
 *
 * Nothing else in this process may open the lock file: closing any handle to it releases the lock.
 *
 * @throws EmbeddedPostgresError `IN_USE`, `NO_PERMISSION`
 */
export async function lockFolder(folder: DataFolder): Promise<FolderLock> {
  createPrivate(folder.lock);
  let file: DatabaseSync | undefined;
  try {
    file = new DatabaseSync(folder.lock, { timeout: 0 });
    // A journal in memory leaves no second file behind.
    file.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
  } catch (error) {
    file?.close();
    if (!(error instanceof Error && "errcode" in error && error.errcode === sqliteBusy)) {
      throw new EmbeddedPostgresError(
        "NO_PERMISSION",
        `The file ${folder.lock} cannot be locked (${messageOf(error)}). Make it and its folder writable for the user ` +
          "who starts the service, on a disk of this machine, or choose another folder with HARBORFORGE_DATA_DIR.",
        { cause: error },
      );
    }
    const pid = await ownerOf(folder);
    throw new EmbeddedPostgresError(
      "IN_USE",
      `The data folder ${folder.path} is in use by another instance${pid === undefined ? "" : ` (process ${pid})`}. ` +
        "Stop that one, or choose another folder with HARBORFORGE_DATA_DIR.",
    );
  }
  rmSync(folder.owner, { force: true });
  writeFileSync(folder.owner, `${process.pid}\n`, { mode: 0o600, flag: "wx" });
  const held = file;
  return {
    release() {
      if (!held.isOpen) return;
      rmSync(folder.owner, { force: true });
      held.close();
    },
  };
}

/** Only for the owner: a user who can read the file can lock it. */
function createPrivate(path: string): void {
  try {
    writeFileSync(path, "", { mode: 0o600, flag: "wx" });
  } catch (error) {
    if (errorCode(error) !== "EEXIST") throw error;
  }
}

async function ownerOf(folder: DataFolder): Promise<number | undefined> {
  const deadline = Date.now() + ownerWaitMs;
  for (;;) {
    // A killed process may have left the id of a process that is gone.
    const pid = Number((await readIfThere(folder.owner))?.trim());
    if (Number.isSafeInteger(pid) && pid > 0 && isAlive(pid)) return pid;
    if (Date.now() >= deadline) return undefined;
    await delay(10);
  }
}
