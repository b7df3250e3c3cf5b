import { rmSync, writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { type DataFolder, readIfThere } from "./data-folder.ts";
import { EmbeddedPostgresError, errorCode, messageOf } from "./embedded-postgres-error.ts";
import { isAlive } from "./postmaster-file.ts";

/** SQLite's code for "another holds the lock". */
const sqliteBusy = 5;

/** How long the one who is refused waits for the holder to have written its process id. */
const ownerWaitMs = 300;

export interface FolderLock {
  release(): void;
}

/**
 * One service a data folder. The lock is the kernel's, on a file: it is granted to exactly one of any number who ask at
 * the same moment, and it ends with its owner, however that one dies, so nothing has to judge whether it is stale. Node
 * gives no lock on files of its own; the SQLite within it takes one for an exclusive transaction, which stays open and
 * writes nothing. It must not be held by PostgreSQL instead (an advisory lock), as there is none at the first start.
 *
 * Nothing else in this process may open the lock file: closing any handle to it would drop the lock.
 *
 * @throws EmbeddedPostgresError `IN_USE`, `NO_PERMISSION`
 */
export async function lockFolder(folder: DataFolder): Promise<FolderLock> {
  createPrivate(folder.lock);
  let file: DatabaseSync | undefined;
  try {
    file = new DatabaseSync(folder.lock, { timeout: 0 });
    // A journal in memory is no second file that could be left behind.
    file.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
  } catch (error) {
    file?.close();
    if (!(error instanceof Error && "errcode" in error && error.errcode === sqliteBusy)) {
      throw new EmbeddedPostgresError(
        "NO_PERMISSION",
        `The file ${folder.lock} cannot be locked (${messageOf(error)}); make it and its folder writable for the user ` +
          "who starts the service, on a disk of this machine, or choose another folder with HARBORFORGE_DATA_DIR.",
        { cause: error },
      );
    }
    const pid = await ownerOf(folder);
    throw new EmbeddedPostgresError(
      "IN_USE",
      `The data folder ${folder.path} is in use by another instance${pid === undefined ? "" : ` (process ${pid})`}; ` +
        "stop that one, or choose another folder with HARBORFORGE_DATA_DIR.",
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

/** Nobody else may open the file: who can read it can hold a lock on it, too. */
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
    // What a killed predecessor left names a process that is gone.
    const pid = Number((await readIfThere(folder.owner))?.trim());
    if (Number.isSafeInteger(pid) && pid > 0 && isAlive(pid)) return pid;
    if (Date.now() >= deadline) return undefined;
    await delay(10);
  }
}
