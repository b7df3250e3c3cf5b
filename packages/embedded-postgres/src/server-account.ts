import { readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { EmbeddedPostgresError } from "./embedded-postgres-error.ts";

/** The operating system's account that PostgreSQL runs as when root starts the service. */
export interface ServerAccount {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/**
 * Accounts PostgreSQL may run as, best first: one made for this service, the one every PostgreSQL package uses, and the
 * one that is always there. It must have a name: `initdb` looks itself up and refuses a bare number.
 */
const candidates = ["harborforge-agents", "postgres", "nobody"];

/** Only root needs another account; undefined means PostgreSQL runs as whoever runs the service. */
export function runsAsRoot(): boolean {
  return process.getuid?.() === 0;
}

/**
 * @param ownerUid who owns the cluster already there: PostgreSQL only serves a folder its own user owns, so the choice
 * made when the cluster was created stays.
 * @throws EmbeddedPostgresError `NO_ACCOUNT`
 */
export function chooseServerAccount(ownerUid?: number, passwd = readPasswd()): ServerAccount {
  const accounts = parsePasswd(passwd);
  if (ownerUid !== undefined && ownerUid !== 0) {
    // The server, unlike initdb, runs under a number without a name.
    return (
      accounts.find((account) => account.uid === ownerUid) ?? { name: `${ownerUid}`, uid: ownerUid, gid: ownerUid }
    );
  }
  const account = findCandidate(accounts);
  if (account) return account;
  throw new EmbeddedPostgresError(
    "NO_ACCOUNT",
    `PostgreSQL does not run as root, and none of the users ${candidates.join(", ")} exists to run it; ` +
      "create one of them, start the service as an ordinary user, or set DATABASE_URL.",
  );
}

/** Whether PostgreSQL, started by root, could serve `folder` under its own name, and root alone decides what lies there. */
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
 * Whether `account` may enter `folder`, judged by the permission bits of it and of all above it. What does not exist yet
 * counts as enterable, as we would create it so. Access lists are not read: a folder opened only by one counts as closed,
 * which costs a detour and breaks nothing.
 */
export function canEnter(account: ServerAccount, folder: string): boolean {
  return foldersUpTo(folder).every((path) => {
    const found = statSync(path, { throwIfNoEntry: false });
    if (!found) return true;
    const bit = found.uid === account.uid ? 0o100 : found.gid === account.gid ? 0o010 : 0o001;
    return (found.mode & bit) !== 0;
  });
}

/** Whether root alone decides what lies at `folder`: nobody else can rename or replace a part of the path to it. */
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
