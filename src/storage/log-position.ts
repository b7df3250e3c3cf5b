import type { Knex } from "knex";
import { revisionCompacted, revisionInFuture } from "./refusals.ts";

/** How far the log of transitions reaches. */
export interface LogPosition {
  /** The last revision that was given. */
  readonly newest: bigint;
  /** Everything after it is kept. */
  readonly oldest: bigint;
}

interface CounterRow {
  readonly revision: bigint;
  readonly oldest: bigint;
}

export async function readLogPosition(knex: Knex): Promise<LogPosition> {
  const row: CounterRow | undefined = await knex<CounterRow>("revision_counter").first("revision", "oldest");
  if (row === undefined) throw new TypeError("the revision counter is missing");
  return { newest: row.revision, oldest: row.oldest };
}

/**
 * Whether the log can be seen up to its newest revision, which a jump by itself gives to nobody. Not for a moment where that is
 * in a partition that was made just now: the snapshot has the counter, and the partition is not known yet.
 */
export async function isLogVisible(knex: Knex, { newest, oldest }: LogPosition): Promise<boolean> {
  if (newest <= oldest) return true;
  const revision = newest.toString();
  const [last] = await knex("agent_transitions")
    .select("revision")
    .where({ revision })
    .unionAll(knex("revision_jumps").select("to_revision").where({ to_revision: revision }));
  return last !== undefined;
}

/**
 * Checks that all transitions after a revision that somebody knows can still be told.
 *
 * @throws Refusal `REVISION_COMPACTED` when some of them are gone, or the revision belongs to a history that was lost;
 * `REVISION_IN_FUTURE` when it was never given.
 */
export async function checkRevision(knex: Knex, revision: bigint, position: LogPosition): Promise<void> {
  if (revision > position.newest) throw revisionInFuture(position.newest);
  if (revision < position.oldest) throw revisionCompacted(position.oldest);
  const jump = await knex("revision_jumps")
    .where("from_revision", "<", revision.toString())
    .where("to_revision", ">", revision.toString())
    .first("to_revision");
  if (jump !== undefined) throw revisionCompacted(position.oldest);
}
