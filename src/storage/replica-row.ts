import type { Micros } from "../../common/contract/time.ts";
import type { Database } from "./database.ts";
import { type LeaseRow, type TrackedLease, trackedLease } from "./lease-queries.ts";
import { namedQuery } from "./queries.ts";

const TAKE_COUNTER = namedQuery("take-counter");
const REGISTER_REPLICA = namedQuery("register-replica");
const REFRESH_REPLICA = namedQuery("refresh-replica");
const RETIRE_REPLICA = namedQuery("retire-replica");
const ADOPT_REPLICAS = namedQuery("adopt-replicas");
const ADOPTED_LEASES = namedQuery("adopted-leases");
const FORGET_REPLICAS = namedQuery("forget-replicas");

/**
 * After how long without a refresh a replica counts as isolated, and the guard of its agents after that; in
 * milliseconds.
 */
export interface IsolationTimes {
  readonly isolatedAfterMs: number;
  readonly graceMs: number;
}

/**
 * Registers a replica.
 *
 * @returns its number, which was never used before
 */
export async function registerReplica(database: Database, times: IsolationTimes): Promise<number> {
  // In a restored database, the next number may belong to a replica that is still running.
  await database.commits.query({ ...TAKE_COUNTER, values: [0n] });
  const sentAt = performance.now();
  const { rows } = await database.commits.query<{ id: number; read_at: Micros }>({
    ...REGISTER_REPLICA,
    values: [times.isolatedAfterMs, times.graceMs],
  });
  const [row] = rows;
  if (row === undefined) throw new TypeError("register-replica returned no row");
  // Until now this process only had the machine's own clock, which may be wrong.
  database.clock.observe(row.read_at, sentAt);
  return row.id;
}

/**
 * Refreshes the row of this replica.
 *
 * @returns whether the replica was isolated since the last refresh, so that its agents are guarded now
 */
export async function refreshReplica(database: Database, replica: number, times: IsolationTimes): Promise<boolean> {
  const { rows } = await database.feed.query<{ isolated: boolean }>({
    ...REFRESH_REPLICA,
    values: [replica, times.isolatedAfterMs, times.graceMs],
  });
  return rows[0]?.isolated ?? false;
}

/** Marks a replica as stopped, so that others may adopt its agents at once. */
export async function retireReplica(database: Database, replica: number): Promise<void> {
  await database.feed.query({ ...RETIRE_REPLICA, values: [replica] });
}

/** An adopted replica, and its guard: no lease of its agents expires before that instant. */
export interface AdoptedReplica {
  readonly id: number;
  readonly noLeaseEndsBefore: Micros;
}

/** Adopts replicas that are gone. */
export async function adoptReplicas(database: Database, replica: number, graceMs: number): Promise<void> {
  await database.feed.query({ ...ADOPT_REPLICAS, values: [replica, graceMs] });
}

/**
 * Deletes the adopted replicas without agents.
 *
 * @returns the other adopted replicas
 */
export async function adoptedReplicas(database: Database, replica: number): Promise<AdoptedReplica[]> {
  const { rows } = await database.feed.query<{ id: number; no_lease_ends_before: Micros | null }>({
    ...FORGET_REPLICAS,
    values: [replica],
  });
  return rows.map((row) => ({ id: row.id, noLeaseEndsBefore: row.no_lease_ends_before ?? 0 }));
}

/** A page of the leases of an adopted replica, in order of the agents' ids after `after`. Empty: there are no more. */
export async function adoptedLeases(database: Database, gone: number, after: bigint): Promise<TrackedLease[]> {
  const { rows } = await database.feed.query<LeaseRow>({ ...ADOPTED_LEASES, values: [gone, after] });
  return rows.map(trackedLease);
}
