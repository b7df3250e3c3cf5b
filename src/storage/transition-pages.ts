import type { Knex } from "knex";
import type { QueryBuilder } from "objection";
import type { Micros } from "../../common/contract/time.ts";
import { toRfc3339 } from "../../common/contract/time.ts";
import type { Transition } from "../domain/agent.ts";
import type { Page, TransitionQuery } from "../domain/directories.ts";
import { IncompleteLogRead } from "./failures.ts";
import { checkRevision, isLogVisible, type LogPosition, readLogPosition } from "./log-position.ts";
import { AgentTransition } from "./models/agent-transition.ts";
import { pageOf } from "./page.ts";
import { readSnapshot } from "./retries.ts";

/**
 * A page of the log: of one `agentId` or of all agents, and only what passes the filters of the query.
 *
 * @throws Refusal `REVISION_COMPACTED`, `REVISION_IN_FUTURE` for `afterRevision`; also if the log was compacted since
 * the previous page, because a list has no holes
 */
export async function listTransitions(
  knex: Knex,
  query: TransitionQuery,
): Promise<Page<Transition> & { readonly upTo: bigint }> {
  const { afterRevision, newestFirst, after, limit, since } = query;
  return await readSnapshot(knex, async (snapshot) => {
    const position = await readLogPosition(snapshot);
    if (query.upTo === undefined && !(await isLogVisible(snapshot, position))) throw new IncompleteLogRead();
    const upTo = query.upTo ?? position.newest;
    const from = newestFirst ? afterRevision : (after ?? afterRevision);
    if (from > 0n) await checkRevision(snapshot, from, position);
    // Transitions below the floor are not returned, even if they still exist: the next page could not continue from
    // them.
    const floor = from > position.oldest ? from : position.oldest;
    const first = since === undefined ? floor : await revisionBefore(snapshot, since, floor, position);
    const last = newestFirst && after !== undefined ? after - 1n : upTo;
    const transitions = await transitionsWithin(snapshot, query, { first, last });
    return {
      ...pageOf(
        transitions.map((transition) => transition.toDomain()),
        limit,
        ({ revision }) => revision,
      ),
      upTo,
    };
  });
}

/** The largest revision from `floor` on up to which all transitions happened before an instant. */
async function revisionBefore(knex: Knex, instant: Micros, floor: bigint, { newest }: LogPosition): Promise<bigint> {
  const { rows }: { rows: { revision: bigint }[] } = await knex.raw(
    "SELECT revision_before(?::timestamptz, ?::bigint, ?::bigint) AS revision",
    [toRfc3339(instant), floor.toString(), newest.toString()],
  );
  return rows[0]?.revision ?? floor;
}

/** Exclusive and inclusive. */
interface RevisionRange {
  readonly first: bigint;
  readonly last: bigint;
}

/** A part of a WHERE clause, with its values. */
interface Condition {
  readonly sql: string;
  readonly values: readonly (string | readonly string[])[];
}

/** On this claw, before or after the transition. A claw may not read what happened to an agent in another claw. */
const IN_CLAW = "? IN (from_claw_identifier, to_claw_identifier)";

/**
 * The query of a page, with one more row than its limit.
 *
 * A filter reads its index branch by branch, each branch in the order of revisions and up to one page, and not the log from
 * its end until enough rows pass.
 */
export function transitionsWithin(
  knex: Knex,
  query: TransitionQuery,
  { first, last }: RevisionRange,
): QueryBuilder<AgentTransition, AgentTransition[]> {
  const { newestFirst, limit } = query;
  const order = newestFirst ? "desc" : "asc";
  const page = AgentTransition.query(knex)
    .orderBy("revision", order)
    .limit(limit + 1);
  const range: Condition = { sql: "revision > ? AND revision <= ?", values: [first.toString(), last.toString()] };
  const { sources, others } = sourcesOf(query);
  const conditions = [range, ...conditionsOf(others)];
  if (sources.length === 0) {
    for (const { sql, values } of conditions) page.whereRaw(sql, [...values]);
    return page;
  }
  const rows = String(limit + 1);
  const found = sources.map(({ branches, column, only }): Condition => {
    // Compares and sorts by both columns of the index. With equality and one column, the planner could read the log in order
    // instead, and check each of its rows.
    const inBranch: Condition = {
      sql: `(${column}, revision) > (branch.key, ?) AND (${column}, revision) <= (branch.key, ?)`,
      values: range.values,
    };
    const all = [inBranch, ...(only === undefined ? [] : [{ sql: only, values: [] }]), ...conditions];
    return {
      sql: `SELECT one.revision FROM (${branches.sql}) branch CROSS JOIN LATERAL (
        SELECT revision FROM agent_transitions WHERE ${all.map(({ sql }) => `(${sql})`).join(" AND ")}
        ORDER BY ${column} ${order}, revision ${order} LIMIT ?
      ) one`,
      values: [...branches.values, ...all.flatMap(({ values }) => [...values]), rows],
    };
  });
  return page.whereRaw(
    `revision IN (
      SELECT found.revision FROM (${found.map(({ sql }) => sql).join(" UNION ALL ")}) found
      ORDER BY found.revision ${order} LIMIT ?
    )`,
    [...found.flatMap(({ values }) => [...values]), rows],
  );
}

/** The filters for rows that an index has found. */
function conditionsOf({ agentId, scope, causes, clawIdentifier, since, incidentId }: TransitionQuery): Condition[] {
  const own = scope?.kind === "claw" ? scope.clawIdentifier : undefined;
  // A claw must not learn that its agents came from a certain other claw.
  const isOther = own !== undefined && clawIdentifier !== undefined && clawIdentifier !== own;
  return [
    ...(isOther ? [{ sql: "false", values: [] }] : []),
    ...(agentId === undefined ? [] : [{ sql: "agent_id = ?", values: [agentId] }]),
    ...[clawIdentifier, own].flatMap((claw) => (claw === undefined ? [] : [{ sql: IN_CLAW, values: [claw] }])),
    ...(causes === undefined || causes.length === 0 ? [] : [{ sql: "cause = ANY (?)", values: [causes] }]),
    ...(since === undefined ? [] : [{ sql: "occurred_at >= ?", values: [toRfc3339(since)] }]),
    ...(incidentId === undefined ? [] : [{ sql: "incident_id = ?", values: [incidentId] }]),
  ];
}

/** An index on a column and the revision: the rows of a page are where the column has a `key` of one of the branches. */
interface Source {
  readonly branches: Condition;
  readonly column: string;
  /** The condition of a partial index. */
  readonly only?: string;
}

/**
 * The narrowest filter that an index cannot serve in the order of revisions by itself, and the query with the other filters.
 * Without sources, one index has all rows in their order.
 */
function sourcesOf(query: TransitionQuery): { readonly sources: readonly Source[]; readonly others: TransitionQuery } {
  const { agentId, scope, causes = [], clawIdentifier, incidentId } = query;
  if (agentId === undefined && scope?.kind === "agents") {
    const branches = { sql: "SELECT unnest(?::text[]) AS key", values: [[...scope.agentIds]] };
    return { sources: [{ branches, column: "agent_id" }], others: query };
  }
  if (agentId === undefined && scope?.kind === "claw") {
    // The agents that live there now.
    const sql = "SELECT agent_id AS key FROM agents WHERE claw_identifier = ?";
    return { sources: [{ branches: { sql, values: [scope.clawIdentifier] }, column: "agent_id" }], others: query };
  }
  if (agentId !== undefined || incidentId !== undefined) return { sources: [], others: query };
  if (clawIdentifier !== undefined) {
    const branches = { sql: "SELECT ?::text AS key", values: [clawIdentifier] };
    const only = "to_claw_identifier IS DISTINCT FROM from_claw_identifier";
    const sources = [
      { branches, column: "to_claw_identifier" },
      { branches, column: "from_claw_identifier", only },
    ];
    return { sources, others: { ...query, clawIdentifier: undefined } };
  }
  if (causes.length === 0) return { sources: [], others: query };
  const branches = { sql: "SELECT DISTINCT unnest(?::text[]) AS key", values: [causes] };
  return { sources: [{ branches, column: "cause" }], others: { ...query, causes: [] } };
}
