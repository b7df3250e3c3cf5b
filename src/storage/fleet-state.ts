import type { ExpiryBrake } from "../domain/directory.ts";
import type { Micros } from "../domain/time.ts";
import type { Database } from "./database.ts";
import { namedQuery } from "./queries.ts";

const COUNT_FLEET = namedQuery("count-fleet");
const LOOK_AT_BRAKE = namedQuery("look-at-brake");

/** Of pg_try_advisory_xact_lock: whose turn the census is. */
const CENSUS_LOCK = 7_294_116_530_218_404n;

/**
 * Counts the agents that have a lease, or takes what another replica counted a moment ago, and notes the pace in force.
 * Durations in milliseconds.
 */
export async function countFleet(
  database: Database,
  pace: { readonly intervalMs: number; readonly leaseMs: number },
): Promise<number> {
  const { rows } = await database.feed.query<{ agents: bigint }>({
    ...COUNT_FLEET,
    values: [CENSUS_LOCK, pace.intervalMs, pace.leaseMs],
  });
  return Number(rows[0]?.agents ?? 0n);
}

/** The brake as it is, released if the mass silence is over; and when it was released last, if ever. */
export async function lookAtBrake(
  database: Database,
): Promise<{ readonly brake: ExpiryBrake; readonly releasedAt: Micros | null }> {
  const { rows } = await database.feed.query<{
    engaged_at: Micros | null;
    released_at: Micros | null;
    held_back: bigint;
  }>({ ...LOOK_AT_BRAKE });
  const [row] = rows;
  const brake = { engagedAt: row?.engaged_at ?? null, heldBack: row?.held_back ?? 0n };
  return { brake, releasedAt: row?.released_at ?? null };
}
