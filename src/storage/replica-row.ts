import type { Micros } from "../contract/time.ts";
import type { Database } from "./database.ts";
import { type LeaseRow, type WatchedLease, watchedLease } from "./lease-queries.ts";
import { namedQuery } from "./queries.ts";

const TAKE_COUNTER = namedQuery("take-counter");
const REGISTER_REPLICA = namedQuery("register-replica");
const REFRESH_REPLICA = namedQuery("refresh-replica");
const RETIRE_REPLICA = namedQuery("retire-replica");
const ADOPT_REPLICAS = namedQuery("adopt-replicas");
const ADOPTED_LEASES = namedQuery("adopted-leases");
const FORGET_REPLICAS = namedQuery("forget-replicas");

/** When a replica counts as isolated, and how long its agents have after that to be heard again; milliseconds. */
export interface IsolationTimes {
  readonly isolatedAfterMs: number;
  readonly graceMs: number;
}

/** @returns the number of this replica, never used before */
export async function registerReplica(database: Database, hearing: IsolationTimes): Promise<number> {
  // In a database that was restored, the next number may be that of a replica which is still there.
  await database.commits.query({ ...TAKE_COUNTER, values: [0n] });
  const sentAt = performance.now();
  const { rows } = await database.commits.query<{ id: number; read_at: Micros }>({
    ...REGISTER_REPLICA,
    values: [hearing.isolatedAfterMs, hearing.graceMs],
  });
  const [row] = rows;
  if (row === undefined) throw new TypeError("register-replica answers with one row");
  // The machine's own clock, which is all that was known so far, may be anything.
  database.clock.observe(row.read_at, sentAt);
  return row.id;
}

/** Says that this replica listens. @returns whether it did not for a while, which its agents are given back */
export async function refreshReplica(database: Database, replica: number, hearing: IsolationTimes): Promise<boolean> {
  const { rows } = await database.feed.query<{ isolated: boolean }>({
    ...REFRESH_REPLICA,
    values: [replica, hearing.isolatedAfterMs, hearing.graceMs],
  });
  return rows[0]?.isolated ?? false;
}

export async function retireReplica(database: Database, replica: number): Promise<void> {
  await database.feed.query({ ...RETIRE_REPLICA, values: [replica] });
}

/** A replica that is gone, and before when none of its agents' leases ends. */
export interface AdoptedReplica {
  readonly id: number;
  readonly noLeaseEndsBefore: Micros;
}

/** Takes over those that are gone. */
export async function adoptReplicas(database: Database, replica: number, graceMs: number): Promise<void> {
  await database.feed.query({ ...ADOPT_REPLICAS, values: [replica, graceMs] });
}

/** Forgets the adopted replicas that nothing is left of. @returns the others */
export async function adoptedReplicas(database: Database, replica: number): Promise<AdoptedReplica[]> {
  const { rows } = await database.feed.query<{ id: number; no_lease_ends_before: Micros | null }>({
    ...FORGET_REPLICAS,
    values: [replica],
  });
  return rows.map((row) => ({ id: row.id, noLeaseEndsBefore: row.no_lease_ends_before ?? 0 }));
}

/** A page of the leases of a replica that was adopted, by the agents' ids after `after`; empty: there are no more. */
export async function adoptedLeases(database: Database, gone: number, after: bigint): Promise<WatchedLease[]> {
  const { rows } = await database.feed.query<LeaseRow>({ ...ADOPTED_LEASES, values: [gone, after] });
  return rows.map(watchedLease);
}
