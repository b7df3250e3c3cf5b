import type { Micros } from "../../common/contract/time.ts";
import { toRfc3339 } from "../../common/contract/time.ts";
import type { OfferLimits } from "./change-group.ts";
import type { Database } from "./database.ts";
import { namedQuery } from "./queries.ts";

const DUE_WAKES = namedQuery("due-wakes");
const OFFERABLE_WAKES = namedQuery("offerable-wakes");
const SWEEP_WAKES = namedQuery("sweep-wakes");

/** Rows of one page of `dueWakes`. The query has the same number. */
const PAGE = 5_000;
/** Rows in one statement: it takes some milliseconds, and other transactions do not wait for its locks. */
const SWEEP_BATCH = 1_000;

/** A wake on which the service has to act at some moment. */
export interface DueWake {
  readonly id: bigint;
  readonly wakeId: string;
  readonly agent: bigint;
  readonly agentId: string;
  readonly storedAt: Micros;
  /** The replica that watches the lease of the agent; null: none does. */
  readonly watcher: number | null;
}

/** The wakes whose deadlines are before an instant, also those that have passed. Page by page, in order. */
export async function* dueWakes(database: Database, before: Micros): AsyncGenerator<readonly DueWake[]> {
  let after: { readonly storedAt: Micros; readonly id: bigint } = { storedAt: 0, id: 0n };
  for (;;) {
    const sentAt = performance.now();
    const values = [toRfc3339(before), toRfc3339(after.storedAt), after.id];
    const { rows } = await database.feed.query<{
      id: bigint;
      wake_id: string;
      agent: bigint;
      agent_id: string;
      due_at: Micros;
      watcher: number | null;
      read_at: Micros;
    }>({ ...DUE_WAKES, values });
    const [first] = rows;
    if (first !== undefined) database.clock.observe(first.read_at, sentAt);
    const page = rows.map((row) => ({
      id: row.id,
      wakeId: row.wake_id,
      agent: row.agent,
      agentId: row.agent_id,
      storedAt: row.due_at,
      watcher: row.watcher,
    }));
    yield page;
    const last = page.at(-1);
    if (last === undefined || page.length < PAGE) return;
    after = last;
  }
}

/** The open wakes of some agents. */
export async function openWakes(
  database: Pick<Database, "feed">,
  agents: readonly bigint[],
): Promise<readonly { readonly agent: bigint; readonly wakeId: string }[]> {
  const { rows } = await database.feed.query<{ agent: bigint; wake_id: string }>(
    "SELECT agent, wake_id FROM wakes WHERE agent = ANY ($1::bigint[]) AND state IN ('offered', 'accepted')",
    [agents],
  );
  return rows.map((row) => ({ agent: row.agent, wakeId: row.wake_id }));
}

export interface OfferableWake {
  readonly wakeId: string;
  readonly agent: bigint;
  readonly agentId: string;
}

/** The queued wakes that this replica can offer now, within the limits. */
export async function offerableWakes(
  database: Database,
  replica: number,
  { perSecond, perClaw }: OfferLimits,
): Promise<readonly OfferableWake[]> {
  const values = [replica, perSecond, perClaw];
  const { rows } = await database.feed.query<{ wake_id: string; agent: bigint; agent_id: string }>({
    ...OFFERABLE_WAKES,
    values,
  });
  return rows.map((row) => ({ wakeId: row.wake_id, agent: row.agent, agentId: row.agent_id }));
}

/**
 * Deletes wakes that ended before the retention time and have expired, and what ended with time.
 *
 * @returns the number of deleted wakes
 */
export async function sweepWakes(database: Pick<Database, "feed">, retentionMs: number): Promise<number> {
  await database.feed.query("DELETE FROM undone_claims WHERE until < clock_timestamp()");
  await database.feed.query("DELETE FROM wake_pauses WHERE until < clock_timestamp()");
  let swept = 0;
  for (;;) {
    const { rowCount } = await database.feed.query({ ...SWEEP_WAKES, values: [SWEEP_BATCH, retentionMs] });
    swept += rowCount ?? 0;
    if ((rowCount ?? 0) < SWEEP_BATCH) return swept;
  }
}
