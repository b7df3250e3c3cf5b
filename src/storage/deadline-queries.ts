import type { Micros } from "../../common/contract/time.ts";
import { toRfc3339 } from "../../common/contract/time.ts";
import type { DeadlineKind } from "../domain/deadline.ts";
import type { Database } from "./database.ts";
import { namedQuery } from "./queries.ts";

const DUE_DEADLINES = namedQuery("due-deadlines");

/** Rows of one page of `due-deadlines`. The query has the same number. */
const PAGE = 5_000;

/** A deadline of an agent, as a row of the view `agent_deadlines`. */
export interface StoredDeadline {
  readonly id: bigint;
  readonly agentId: string;
  readonly kind: DeadlineKind;
  readonly storedAt: Micros;
  /** The replica that watches the agent; null: none does. */
  readonly replicaId: number | null;
}

interface DeadlineRow {
  readonly id: bigint;
  readonly agent_id: string;
  readonly kind: DeadlineKind;
  readonly due_at: Micros;
  readonly replica_id: number | null;
  readonly read_at: Micros;
}

/**
 * The deadlines before an instant, also those that have passed, of the agents that this replica watches (its own, and those
 * that it adopted) or that no replica watches. Page by page, in order of the deadlines.
 */
export async function* storedDeadlines(
  database: Database,
  replica: number,
  before: Micros,
): AsyncGenerator<readonly StoredDeadline[]> {
  let after: { readonly storedAt: Micros; readonly id: bigint } = { storedAt: 0, id: 0n };
  for (;;) {
    const sentAt = performance.now();
    const values = [replica, toRfc3339(before), toRfc3339(after.storedAt), after.id];
    const { rows } = await database.feed.query<DeadlineRow>({ ...DUE_DEADLINES, values });
    const [first] = rows;
    if (first !== undefined) database.clock.observe(first.read_at, sentAt);
    const page = rows.map((row) => ({
      id: row.id,
      agentId: row.agent_id,
      kind: row.kind,
      storedAt: row.due_at,
      replicaId: row.replica_id,
    }));
    yield page;
    const last = page.at(-1);
    if (last === undefined || page.length < PAGE) return;
    after = last;
  }
}
