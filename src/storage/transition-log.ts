import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import type { Transition } from "../domain/agent.ts";
import type { AgentFilter, WatchedAgent } from "../domain/filter.ts";
import { type TransitionRow, transitionFromRow, type WatchedAgentRow, watchedAgentFromRow } from "./agent-row.ts";
import { IncompleteLogRead } from "./failures.ts";
import { namedQuery } from "./queries.ts";

const READ_LOG_POSITION = namedQuery("read-log-position");
const TAKE_COUNTER = namedQuery("take-counter");
const READ_TRANSITIONS = namedQuery("read-transitions");
// Not a named statement, so that PostgreSQL plans it for each filter. A generic plan could not use the index of any
// filter.
const { text: READ_SNAPSHOT_PAGE } = namedQuery("snapshot-page-by-filter");

/** How often a page is read until it is complete. Each retry waits a millisecond longer. */
const MAX_READS = 10;

/** A part of the log, and the range of the log, of one snapshot. */
export interface LogPage {
  /** In ascending order. Fewer than the limit: there are no others up to `newest`. */
  readonly transitions: readonly Transition[];
  /** The newest revision. */
  readonly newest: bigint;
  /** The log has all transitions after this revision. */
  readonly oldest: bigint;
  /** The revision gaps that end after the requested revision. In ascending order. */
  readonly gaps: readonly RevisionGap[];
}

/**
 * A place where the history may have been lost (a restore, a failover to a standby that lagged). Watchers may have seen
 * revisions strictly between the two, but these no longer exist.
 */
export interface RevisionGap {
  readonly from: bigint;
  readonly to: bigint;
}

/** Whether a revision is strictly within one of the gaps: then it may belong to a lost history. */
export function isInGap(revision: bigint, gaps: readonly RevisionGap[]): boolean {
  return gaps.some(({ from, to }) => from < revision && revision < to);
}

/** Some agents in order of ids, as of one revision. */
export interface SnapshotPage {
  readonly revision: bigint;
  /** Fewer than the limit: there are no others with larger ids. */
  readonly agents: readonly WatchedAgent[];
}

/** The query returns one row even without a result. Then these columns are null. */
type OrNothing<Row, Key extends keyof Row> = Row | { readonly [K in Key]: null };

type LogRow = OrNothing<TransitionRow, "revision"> & {
  readonly newest: bigint;
  readonly oldest: bigint;
  /** From and to of each gap; null if there are none. */
  readonly gaps: readonly (readonly [string, string])[] | null;
  /** Why the database may have another history than the one of `newest`. Null: it has the same one. */
  readonly history_break: string | null;
};
type SnapshotRow = OrNothing<WatchedAgentRow, "id"> & { readonly snapshot_revision: bigint };

/** Reads the log of transitions, and agents as of a revision of it. */
export class TransitionLog {
  readonly #pool: pg.Pool;

  constructor(pool: pg.Pool) {
    this.#pool = pool;
  }

  /** The newest revision. */
  async newest(): Promise<bigint> {
    const { rows } = await this.#pool.query<{ revision: bigint }>(READ_LOG_POSITION);
    return only(rows[0]).revision;
  }

  /**
   * The first `limit` transitions after the revision `after`. Continuing after the last one never misses a transition,
   * because revisions are in commit order.
   *
   * PostgreSQL chooses the partitions of a statement before it takes the snapshot, and sessions learn of new partitions
   * shortly after their commit. A revision gap begins a new partition and uses it at once. So a statement may see the
   * counter but not the newest transitions. Such a page lacks the newest revision, and is read again.
   *
   * @throws IncompleteLogRead if the page stays incomplete, e.g. because the replica that made the partition froze
   * during its commit
   */
  async read(after: bigint, limit: number): Promise<LogPage> {
    for (let reads = 1; reads <= MAX_READS; reads += 1) {
      const rows = await this.#rows(after, limit);
      if (only(rows[0]).history_break !== null) {
        // Begin it now, not with the next transition: until then a revision of the lost history would look like a
        // future one.
        await this.beginNewHistory(0n);
        continue;
      }
      const page = pageOf(rows);
      if (isWhole(page, after, limit)) return page;
      await sleep(reads);
    }
    throw new IncompleteLogRead();
  }

  /**
   * Begins a new history if the database may have lost the history of the newest revision (see `history_break` in
   * migrations/0006_history.sql), or if `seen`, a revision that was read from the log, is larger than the newest one.
   * Later revisions are larger than all that were assigned before.
   */
  async beginNewHistory(seen: bigint): Promise<void> {
    await this.#pool.query({ ...TAKE_COUNTER, values: [seen] });
  }

  async #rows(after: bigint, limit: number): Promise<LogRow[]> {
    return (await this.#pool.query<LogRow>({ ...READ_TRANSITIONS, values: [after, limit] })).rows;
  }

  /** The first `limit` agents that pass the filter and have a larger id than `afterId`. */
  async readSnapshotPage(filter: AgentFilter, afterId: bigint, limit: number): Promise<SnapshotPage> {
    const { rows } = await this.#pool.query<SnapshotRow>({
      text: READ_SNAPSHOT_PAGE,
      values: [
        afterId,
        orNull(filter.agentIds),
        orNull(filter.userIds),
        orNull(filter.clawIdentifiers),
        orNull(filter.statuses),
        limit,
      ],
    });
    return {
      revision: only(rows[0]).snapshot_revision,
      agents: rows.flatMap((row) => (row.id === null ? [] : watchedAgentFromRow(row))),
    };
  }
}

function pageOf(rows: readonly LogRow[]): LogPage {
  const { newest, oldest, gaps } = only(rows[0]);
  return {
    transitions: rows.flatMap((row) => (row.revision === null ? [] : transitionFromRow(row))),
    newest,
    oldest,
    gaps: (gaps ?? []).map(([from, to]) => ({ from: BigInt(from), to: BigInt(to) })),
  };
}

/** Whether the page is complete up to `newest`, or full. A page that cannot continue from `after` is complete. */
function isWhole({ transitions, newest, oldest, gaps }: LogPage, after: bigint, limit: number): boolean {
  if (transitions.length >= limit || after >= newest || after < oldest) return true;
  // The end of a gap has no row in the log.
  return newest === gaps.at(-1)?.to || newest === transitions.at(-1)?.revision;
}

function orNull<Value>(values: readonly Value[]): readonly Value[] | null {
  return values.length === 0 ? null : values;
}

function only<Row>(row: Row | undefined): Row {
  if (row === undefined) throw new TypeError("revision_counter has no row");
  return row;
}
