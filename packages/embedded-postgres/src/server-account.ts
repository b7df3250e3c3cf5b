import { readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { EmbeddedPostgresError } from "./embedded-postgres-error.ts";

/** The account of the operating system that PostgreSQL runs as if root starts the service. */
export interface ServerAccount {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/**
 * Accounts for PostgreSQL, best first: one of this service, the one of PostgreSQL's system packages, and one that always exists. The
 * account must have a name: `initdb` looks itself up and rejects a uid without one.
 */
const candidates = ["harborforge-agents", "postgres", "nobody"];

/** Whether this process runs as root. Only then PostgreSQL needs another account. */
export function runsAsRoot(): boolean {
  return process.getuid?.() === 0;
}

/**
 * @param ownerUid the owner of an existing cluster. PostgreSQL only serves a folder of its own user, so that account stays
 * @throws EmbeddedPostgresError `NO_ACCOUNT`
 */
export function chooseServerAccount(ownerUid?: number, passwd = readPasswd()): ServerAccount {
  const accounts = parsePasswd(passwd);
  if (ownerUid !== undefined && ownerUid !== 0) {
    // The server, unlike initdb, runs as a uid without a name.
    return (
      accounts.find((account) => account.uid === ownerUid) ?? { name: `${ownerUid}`, uid: ownerUid, gid: ownerUid }
    );
  }
  const account = findCandidate(accounts);
  if (account) return account;
  throw new EmbeddedPostgresError(
    "NO_ACCOUNT",
    `PostgreSQL does not run as root, and none of the users ${candidates.join(", ")} exists to run it. ` +
      "Create one of them, start the service as an ordinary user, or set DATABASE_URL.",
  );
}

/** Whether the server account can enter `folder`, and only root can change the path to it. */
export function isFitForRoot(folder: string, passwd = readPasswd()): boolean {
  const account = findCandidate(parsePasswd(passwd));
  return account !== undefined && canEnter(account, folder) && isRootsAlone(folder);
}

function findCandidate(accounts: ServerAccount[]): ServerAccount | undefined {
  return candidates
    .map((name) => accounts.find((account) => account.name === name && account.uid !== 0))
    .find((account) => account !== undefined);
}

function readPasswd(): string {
  try {
    return readFileSync("/etc/passwd", "utf8");
  } catch {
    return "";
  }
}

function parsePasswd(passwd: string): ServerAccount[] {
  const accounts: ServerAccount[] = [];
  for (const line of passwd.split("\n")) {
    const [name, , uid, gid] = line.split(":");
    if (name && uid && gid && /^\d+$/.test(uid) && /^\d+$/.test(gid)) {
      accounts.push({ name, uid: Number(uid), gid: Number(gid) });
    }
  }
  return accounts;
}

/**
 * Whether `account` may enter `folder`, by the permission bits of it and of all folders above it. Missing folders count as open, since
 * they will be created that way. Access lists are not read: a folder that only a list opens counts as closed, which costs a copy and
 * breaks nothing.
 */
export function canEnter(account: ServerAccount, folder: string): boolean {
  return foldersUpTo(folder).every((path) => {
    const found = statSync(path, { throwIfNoEntry: false });
    if (!found) return true;
    const bit = found.uid === account.uid ? 0o100 : found.gid === account.gid ? 0o010 : 0o001;
    return (found.mode & bit) !== 0;
  });
}

/** Whether only root can rename or replace a part of the path to `folder`. */
function isRootsAlone(folder: string): boolean {
  return foldersUpTo(folder).every((path) => {
    const found = statSync(path, { throwIfNoEntry: false });
    if (!found) return true;
    const othersWrite = (found.mode & 0o022) !== 0;
    const sticky = (found.mode & 0o1000) !== 0;
    return found.uid === 0 && (!othersWrite || sticky);
  });
}

function foldersUpTo(folder: string): string[] {
  const folders: string[] = [];
  for (let path = resolve(folder); ; path = dirname(path)) {
    folders.push(path);
    if (path === dirname(path)) return folders;
  }
}
