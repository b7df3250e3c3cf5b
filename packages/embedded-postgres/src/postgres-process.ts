import type { ServerAccount } from "./server-account.ts";

/**
 * Names the working directory of the process that asks. The kernel follows it to the folder itself, not along a path, and
 * enters the working directory of a child before the child gives up root: so PostgreSQL serves a folder that lies below
 * one its account cannot enter. Linux only.
 */
export const folderThroughCwd = "/proc/self/cwd";

/** How PostgreSQL's programs are started: as the account, if there is one, and with nothing of our own environment. */
export function asServer(account: ServerAccount | undefined): {
  env: NodeJS.ProcessEnv;
  windowsHide: true;
  uid?: number;
  gid?: number;
} {
  return {
    // A PGDATA, PGPORT or LC_ALL of the user's must not reach it. On Windows programs do not start without theirs.
    env: process.platform === "win32" ? process.env : { PATH: "/usr/local/bin:/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" },
    windowsHide: true,
    ...(account && { uid: account.uid, gid: account.gid }),
  };
}

/** The line in which a program of PostgreSQL says why it gave up. */
export function lastComplaint(said: string): string | undefined {
  const lines = said.split("\n").filter((line) => /\b(FATAL|PANIC|error):/.test(line));
  return lines
    .at(-1)
    ?.replace(/^.*?\b(FATAL|PANIC|error):\s*/, "")
    .trim();
}
