import { readdir, readFile } from "node:fs/promises";

/** The kernel counts processor time in ticks of 10 ms (`getconf CLK_TCK`). */
const TICK_MS = 10;

/**
 * The user and system time of the processes and their ended children so far, in milliseconds. For living threads it
 * reads the scheduler's account in nanoseconds, which is exact enough for short rounds. For ended ones there are only
 * ticks.
 */
export async function cpuMs(pids: readonly number[]): Promise<number> {
  const times = await Promise.all(pids.map(processCpuMs));
  return times.reduce((sum, ms) => sum + ms, 0);
}

/** The resident memory of the process, in bytes. */
export async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1_024;
}

/** The process and all its current descendants. */
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

/** The busy time of all processors so far, and their number. Undefined if the machine does not report it. */
export async function machineBusyMs(): Promise<{ busyMs: number; cores: number } | undefined> {
  const text = await readFile("/proc/stat", "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  // proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal. Idle and iowait are not busy time.
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = (/^cpu +(.*)$/m.exec(text)?.[1] ?? "")
    .split(" ")
    .map(Number);
  const cores = text.match(/^cpu\d+ /gm)?.length ?? 1;
  return { busyMs: (user + nice + system + irq + softirq + steal) * TICK_MS, cores };
}

async function processCpuMs(pid: number): Promise<number> {
  const stat = await readStat(pid);
  if (stat === undefined) return 0;
  return Math.max(stat.ownMs, await threadsMs(pid)) + stat.childrenMs;
}

/** The time of living threads. */
async function threadsMs(pid: number): Promise<number> {
  const folder = `/proc/${pid}/task`;
  const threads = await readdir(folder).catch(() => []);
  const times = await Promise.all(
    threads.map(async (thread) => {
      const schedstat = await readFile(`${folder}/${thread}/schedstat`, "utf8").catch(() => "0");
      return Number(schedstat.split(" ")[0]) / 1_000_000;
    }),
  );
  return times.reduce((sum, ms) => sum + ms, 0);
}

async function readStat(pid: number): Promise<{ parent: number; ownMs: number; childrenMs: number } | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  if (stat === undefined) return undefined;
  // The name in parentheses may hold anything. After it, by proc_pid_stat(5): state, ppid (4), … utime, stime, cutime,
  // cstime (14 to 17).
  const fields = stat
    .slice(stat.lastIndexOf(")") + 2)
    .split(" ")
    .map(Number);
  const [, parent = 0] = fields;
  const [user = 0, system = 0, childUser = 0, childSystem = 0] = fields.slice(11, 15);
  return { parent, ownMs: (user + system) * TICK_MS, childrenMs: (childUser + childSystem) * TICK_MS };
}
