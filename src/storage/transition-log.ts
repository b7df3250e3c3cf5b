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
// Sent without its name, so that it is planned for each filter: one plan for all could use no index of any of them.
const { text: READ_SNAPSHOT_PAGE } = namedQuery("read-snapshot-page");

/** How often a page is read at most until it is seen whole; before each time a millisecond more of a pause. */
const MOST_READS = 10;

/** A part of the log, and how far the log goes, as of one moment. */
export interface LogPage {
  /** Ascending. Fewer than asked for: there is nothing else up to `newest`. */
  readonly transitions: readonly Transition[];
  /** The last revision that was given. */
  readonly newest: bigint;
  /** Reading can begin after this revision, after none before it. */
  readonly oldest: bigint;
  /** The revision gaps ahead of the revision to read after, or around it. Ascending. */
  readonly gaps: readonly RevisionGap[];
}

/**
 * A place where a history was lost (a restore, a failover to a standby that lagged). Revisions strictly between the two
 * may have been seen, and are nobody's any more.
 */
export interface RevisionGap {
  readonly from: bigint;
  readonly to: bigint;
}

export function isWithin(revision: bigint, gaps: readonly RevisionGap[]): boolean {
  return gaps.some(({ from, to }) => from < revision && revision < to);
}

/** Some agents in the order of ids, as of one revision. */
export interface SnapshotPage {
  readonly revision: bigint;
  /** Fewer than asked for: there are no others with larger ids. */
  readonly agents: readonly WatchedAgent[];
}

/** One row comes even when there is nothing to show; then its columns are null. */
type OrNothing<Row, Key extends keyof Row> = Row | { readonly [K in Key]: null };

type LogRow = OrNothing<TransitionRow, "revision"> & {
  readonly newest: bigint;
  readonly oldest: bigint;
  /** From and to of each; null where there is none. */
  readonly gaps: readonly (readonly [string, string])[] | null;
  /** Why this may be another history than the one that gave `newest`. */
  readonly history_break: string | null;
};
type SnapshotRow = OrNothing<WatchedAgentRow, "id"> & { readonly snapshot_revision: bigint };

/** Reads the log of transitions, and agents as of a revision of it. */
export class TransitionLog {
  readonly #pool: pg.Pool;

  constructor(pool: pg.Pool) {
    this.#pool = pool;
  }

  /** The last revision that was given. */
  async newest(): Promise<bigint> {
    const { rows } = await this.#pool.query<{ revision: bigint }>(READ_LOG_POSITION);
    return only(rows[0]).revision;
  }

  /**
   * The first `limit` transitions with a larger revision than `after`. None is ever missed by going on from the last
   * one: revisions are in the order of commits.
   *
   * PostgreSQL settles which partitions a statement reads before it takes the statement's snapshot, and tells of new ones
   * only right after the commit that made them. So in a new partition, which a jump begins and uses at once, a statement
   * may miss transitions although it sees the counter beyond them. The last revision shows it: it is in the log.
   *
   * @throws IncompleteLogRead when it stays so, as when whoever made the partition was frozen in the midst of its commit
   */
  async read(after: bigint, limit: number): Promise<LogPage> {
    for (let reads = 1; reads <= MOST_READS; reads += 1) {
      const rows = await this.#rows(after, limit);
      if (only(rows[0]).history_break !== null) {
        // Now, and not with the next transition: until then a revision of the lost tail would look like one of the future.
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
   * Begins a new history where the database is not certain to be in the one that gave the last revision (see
   * `history_break` in migrations/0006_history.sql), or where `seen`, a revision that was read from the log, is beyond the
   * last one. What comes next has revisions beyond all that were given.
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

/** Nothing is missing up to `newest`, unless the page is full. Where there is nothing to go on from nothing can be. */
function isWhole({ transitions, newest, oldest, gaps }: LogPage, after: bigint, limit: number): boolean {
  if (transitions.length >= limit || after >= newest || after < oldest) return true;
  // A gap by itself gives a revision to nobody.
  return newest === gaps.at(-1)?.to || newest === transitions.at(-1)?.revision;
}

function orNull<Value>(values: readonly Value[]): readonly Value[] | null {
  return values.length === 0 ? null : values;
}

function only<Row>(row: Row | undefined): Row {
  if (row === undefined) throw new TypeError("the database has no revision counter");
  return row;
}
