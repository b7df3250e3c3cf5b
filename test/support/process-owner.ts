/**
 * Ends the processes that another process started when that process is gone: `process-owner.ts ID`. See
 * owned-process.ts. Standard input has one line of JSON for each of them, and ends with the other process.
 */
import { rmSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { isStillThere, type KnownProcess, knownProcess, postgresIn, processesMarked } from "./left-behind.ts";
import { OWNER_VARIABLE, type Owned } from "./process-owner-words.ts";

const POLL_MS = 50;
/** A process that was being started when its parent ended is found the next time. */
const QUIET_POLLS = 3;
/** PostgreSQL kills its own children 5 s after a request to end at once. */
const POSTGRES_MS = 8_000;
/** Longer than any step takes. */
const DEADLINE_MS = 60_000;

const [id = ""] = process.argv.slice(2);
const started: KnownProcess[] = [];
const folders: string[] = [];
const databases: { readonly adminUrl: string; readonly prefix: string }[] = [];

// It ends only when its work is done.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => undefined);

for await (const line of createInterface({ input: process.stdin })) note(line);
await endAll();
for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
if (databases.length > 0) {
  const { dropDatabases } = await import("./drop-databases.ts");
  for (const { adminUrl, prefix } of databases) await dropDatabases(adminUrl, prefix).catch(() => undefined);
}

function note(line: string): void {
  let owned: Owned;
  try {
    owned = JSON.parse(line);
  } catch {
    // The other process was killed while it wrote.
    return;
  }
  if ("folder" in owned) folders.push(owned.folder);
  else if ("databases" in owned) databases.push(owned.databases);
  else {
    const known = knownProcess(owned.process);
    if (known !== undefined) started.push(known);
  }
}

async function endAll(): Promise<void> {
  const stoppedAt = new Map<number, number>();
  const deadline = performance.now() + DEADLINE_MS;
  for (let quiet = 0; quiet < QUIET_POLLS && performance.now() < deadline; ) {
    const known = started.filter(isStillThere).map(({ pid }) => pid);
    const processes = new Set([...known, ...processesMarked(OWNER_VARIABLE, (value) => value.split(",").includes(id))]);
    for (const pid of processes) signal(pid, "SIGKILL");
    const servers = (await Promise.all(folders.map(postgresIn))).flat();
    for (const pid of servers) {
      const since = stoppedAt.get(pid);
      if (since === undefined) {
        stoppedAt.set(pid, performance.now());
        // At once, but in order: a killed one would leave its shared memory behind.
        signal(pid, "SIGQUIT");
      } else if (performance.now() - since > POSTGRES_MS) signal(pid, "SIGKILL");
    }
    quiet = processes.size + servers.length === 0 ? quiet + 1 : 0;
    await delay(POLL_MS);
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended.
  }
}
