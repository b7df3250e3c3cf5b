import type { Micros } from "../domain/time.ts";
import type { Database } from "./database.ts";
import { type LeaseRow, type WatchedLease, watchedLease } from "./liveness.ts";
import { namedQuery } from "./queries.ts";

const REGISTER_REPLICA = namedQuery("register-replica");
const REFRESH_REPLICA = namedQuery("refresh-replica");
const RETIRE_REPLICA = namedQuery("retire-replica");
const ADOPT_AGENTS = namedQuery("adopt-agents");
const FORGET_REPLICA = namedQuery("forget-replica");

/** @returns the number of this replica, never used before */
export async function registerReplica(database: Database): Promise<number> {
  const sentAt = performance.now();
  const { rows } = await database.commits.query<{ id: number; read_at: Micros }>({ ...REGISTER_REPLICA });
  const [row] = rows;
  if (row === undefined) throw new TypeError("register-replica answers with one row");
  // The machine's own clock, which is all that was known so far, may be anything.
  database.clock.observe(row.read_at, sentAt);
  return row.id;
}

/** Says that this replica lives. @returns the replicas that have not said so for `staleMs` milliseconds */
export async function refreshReplica(database: Database, replica: number, staleMs: number): Promise<number[]> {
  const { rows } = await database.feed.query<{ id: number }>({ ...REFRESH_REPLICA, values: [replica, staleMs] });
  return rows.map(({ id }) => id);
}

export async function retireReplica(database: Database, replica: number): Promise<void> {
  await database.feed.query({ ...RETIRE_REPLICA, values: [replica] });
}

/** @returns one page of adopted agents; empty: there are none left (that are not locked at this moment) */
export async function adoptAgents(database: Database, replica: number, gone: number): Promise<WatchedLease[]> {
  const { rows } = await database.feed.query<LeaseRow>({ ...ADOPT_AGENTS, values: [replica, gone] });
  return rows.map(watchedLease);
}

export async function forgetReplica(database: Database, gone: number, staleMs: number): Promise<void> {
  await database.feed.query({ ...FORGET_REPLICA, values: [gone, staleMs] });
}
