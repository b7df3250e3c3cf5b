import type { Knex } from "knex";
import { revisionCompacted, revisionInFuture } from "./refusals.ts";

/** The range of the log of transitions. */
export interface LogPosition {
  /** The newest revision. */
  readonly newest: bigint;
  /** The log has all transitions after this revision. */
  readonly oldest: bigint;
}

interface CounterRow {
  readonly revision: bigint;
  readonly oldest: bigint;
}

/** Reads the range of the log. */
export async function readLogPosition(knex: Knex): Promise<LogPosition> {
  const row: CounterRow | undefined = await knex<CounterRow>("revision_counter").first("revision", "oldest");
  if (row === undefined) throw new TypeError("the revision counter is missing");
  return { newest: row.revision, oldest: row.oldest };
}

/**
 * Whether this snapshot shows the log up to its newest revision. A new partition may not be visible yet, although the
 * counter is. The end of a revision gap has no row in the log.
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
 * Checks that the log still has all transitions after a caller's revision.
 *
 * @throws Refusal `REVISION_COMPACTED` if some are removed, or the revision is of a lost history; `REVISION_IN_FUTURE`
 * if the revision was never assigned
 */
export async function checkRevision(knex: Knex, revision: bigint, position: LogPosition): Promise<void> {
  if (revision > position.newest) throw revisionInFuture(position.newest);
  if (revision < position.oldest) throw revisionCompacted(position.oldest);
  const gap = await knex("revision_jumps")
    .where("from_revision", "<", revision.toString())
    .where("to_revision", ">", revision.toString())
    .first("to_revision");
  if (gap !== undefined) throw revisionCompacted(position.oldest);
}
