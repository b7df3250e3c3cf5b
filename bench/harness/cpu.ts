import { readdir, readFile } from "node:fs/promises";

/** The kernel counts processor time in ticks of 10 ms on every machine that Node runs on (`getconf CLK_TCK`). */
const TICK_MS = 10;

/** User and system time that the processes used so far, with that of their children that ended, in milliseconds. */
export async function cpuMs(pids: readonly number[]): Promise<number> {
  const times = await Promise.all(pids.map(async (pid) => (await readStat(pid))?.cpuMs ?? 0));
  return times.reduce((sum, ms) => sum + ms, 0);
}

/** Resident memory of the process, in bytes. */
export async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1_024;
}

/** The process and all that descend from it, as they are now. */
export async function family(root: number): Promise<number[]> {
  const parents = new Map<number, number>();
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const stat = await readStat(Number(name));
    if (stat !== undefined) parents.set(Number(name), stat.parent);
  }
  const members = [root];
  for (const member of members) {
    for (const [pid, parent] of parents) if (parent === member) members.push(pid);
  }
  return members;
}

async function readStat(pid: number): Promise<{ parent: number; cpuMs: number } | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  if (stat === undefined) return undefined;
  // The name in parentheses may hold anything. After it, by proc_pid_stat(5): state, ppid (4), … utime, stime, cutime,
  // cstime (14 to 17).
  const fields = stat
    .slice(stat.lastIndexOf(")") + 2)
    .split(" ")
    .map(Number);
  const [, parent = 0] = fields;
  return { parent, cpuMs: fields.slice(11, 15).reduce((sum, ticks) => sum + ticks, 0) * TICK_MS };
}
