import type { ServerAccount } from "./server-account.ts";

/**
 * The working directory of the process that opens it. The kernel goes to the folder itself, not along a path, and enters the working
 * directory of a child while the child is still root. So PostgreSQL can serve a folder below one that its account cannot enter. Linux
 * only.
 */
export const folderThroughCwd = "/proc/self/cwd";

/** Options to start PostgreSQL's programs: as the account, if there is one, and without our environment. */
export function asServer(account: ServerAccount | undefined): {
  env: NodeJS.ProcessEnv;
  windowsHide: true;
  uid?: number;
  gid?: number;
} {
  return {
    // The user's PGDATA, PGPORT or LC_ALL must not reach it. On Windows, programs need the environment to start.
    env: process.platform === "win32" ? process.env : { PATH: "/usr/local/bin:/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" },
    windowsHide: true,
    ...(account && { uid: account.uid, gid: account.gid }),
  };
}

/** The last error in the output of a PostgreSQL program. */
export function lastErrorLine(output: string): string | undefined {
  const lines = output.split("\n").filter((line) => /\b(FATAL|PANIC|error):/.test(line));
  return lines
    .at(-1)
    ?.replace(/^.*?\b(FATAL|PANIC|error):\s*/, "")
    .trim();
}
