import type { AgentStatus, ExhaustReason } from "../../common/contract/enum-names.ts";
import type { Micros } from "../../common/contract/time.ts";
import type { ExpiryBrake } from "../domain/directories.ts";
import type { Database } from "./database.ts";
import { namedQuery } from "./queries.ts";

const COUNT_FLEET = namedQuery("refresh-fleet-statistics");
const RECORD_PACE = namedQuery("record-pace");
const CHECK_BRAKE = namedQuery("check-brake");

/** The key of pg_try_advisory_xact_lock: one replica computes the statistics at a time. */
const FLEET_STATISTICS_LOCK = 7_294_116_530_218_404n;

/** The fleet in numbers. A status or reason without agents may be missing. */
export interface FleetTally {
  readonly statuses: Partial<Readonly<Record<AgentStatus, number>>>;
  readonly exhausted: Partial<Readonly<Record<ExhaustReason, number>>>;
  /** Claws with an agent that is not offline, and claws without one. */
  readonly claws: { readonly online: number; readonly offline: number };
}

/**
 * The number of agents with a lease: counted now, or by another replica a moment ago. `tally`: undefined if another replica is
 * counting at this moment.
 */
export async function countFleet(
  database: Database,
): Promise<{ readonly onlineAgents: number; readonly tally: FleetTally | undefined }> {
  const { rows } = await database.feed.query<{ agents: bigint; tally: FleetTally | null }>({
    ...COUNT_FLEET,
    values: [FLEET_STATISTICS_LOCK],
  });
  const [row] = rows;
  return { onlineAgents: Number(row?.agents ?? 0n), tally: row?.tally ?? undefined };
}

/** Records the current pace; durations in milliseconds. */
export async function recordPace(
  database: Database,
  pace: { readonly intervalMs: number; readonly leaseMs: number },
): Promise<void> {
  await database.feed.query({ ...RECORD_PACE, values: [pace.intervalMs, pace.leaseMs] });
}

/** The state of the brake. Releases it if the mass silence is over. `releasedAt`: its last release; null: never. */
export async function checkBrake(
  database: Database,
): Promise<{ readonly brake: ExpiryBrake; readonly releasedAt: Micros | null }> {
  const { rows } = await database.feed.query<{
    engaged_at: Micros | null;
    released_at: Micros | null;
    held_back: bigint;
  }>({ ...CHECK_BRAKE });
  const [row] = rows;
  const brake = { engagedAt: row?.engaged_at ?? null, heldBack: row?.held_back ?? 0n };
  return { brake, releasedAt: row?.released_at ?? null };
}
