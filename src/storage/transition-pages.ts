import type { Knex } from "knex";
import type { QueryBuilder } from "objection";
import type { Transition } from "../domain/agent.ts";
import type { Page, TransitionQuery } from "../domain/directories.ts";
import type { AgentScope } from "../domain/principal.ts";
import { IncompleteLogRead } from "./failures.ts";
import { checkRevision, isLogVisible, readLogPosition } from "./log-position.ts";
import { AgentTransition } from "./models/agent-transition.ts";
import { pageOf } from "./page.ts";
import { readSnapshot } from "./retries.ts";

/**
 * A page of the log, of one `agentId` or of all agents.
 *
 * @throws Refusal `REVISION_COMPACTED`, `REVISION_IN_FUTURE` for `afterRevision`; also if the log was compacted since
 * the previous page, because a list has no holes
 */
export async function listTransitions(
  knex: Knex,
  query: TransitionQuery,
): Promise<Page<Transition> & { readonly upTo: bigint }> {
  const { agentId, scope, afterRevision, newestFirst, after, limit } = query;
  return await readSnapshot(knex, async (snapshot) => {
    const position = await readLogPosition(snapshot);
    if (query.upTo === undefined && !(await isLogVisible(snapshot, position))) throw new IncompleteLogRead();
    const upTo = query.upTo ?? position.newest;
    const from = newestFirst ? afterRevision : (after ?? afterRevision);
    if (from > 0n) await checkRevision(snapshot, from, position);
    // Transitions below the floor are not returned, even if they still exist: the next page could not continue from
    // them.
    const first = from > position.oldest ? from : position.oldest;
    const last = newestFirst && after !== undefined ? after - 1n : upTo;
    const order = newestFirst ? "desc" : "asc";
    const page = AgentTransition.query(snapshot)
      .where("revision", ">", first.toString())
      .where("revision", "<=", last.toString())
      .orderBy("revision", order)
      .limit(limit + 1);
    if (agentId !== undefined) page.where("agent_id", agentId);
    if (scope !== undefined && agentId === undefined)
      limitToScope(page, scope, { first, last, order, limit: limit + 1 });
    if (scope?.kind === "claw") page.whereRaw(IN_CLAW, [scope.clawIdentifier]);
    const transitions = await page;
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

/** A claw may not read what happened to an agent in another claw, except how it came and left. */
const IN_CLAW = "? IN (from_claw_identifier, to_claw_identifier)";

interface RevisionRange {
  /** Exclusive. */
  readonly first: bigint;
  /** Inclusive. */
  readonly last: bigint;
  readonly order: "asc" | "desc";
  readonly limit: number;
}

/**
 * Limits the page to the agents of a scope; for a claw, those that live there now. The subquery reads the log agent by
 * agent, up to one page each. Otherwise the planner might read the whole log for a few rows, for the least trusted
 * callers.
 */
function limitToScope(page: QueryBuilder<AgentTransition>, scope: AgentScope, range: RevisionRange): void {
  const { first, last, order, limit } = range;
  const isClaw = scope.kind === "claw";
  const agentIds = isClaw
    ? "SELECT agent_id FROM agents WHERE claw_identifier = ?"
    : "SELECT unnest(?::text[]) AS agent_id";
  page.whereRaw(
    `revision IN (
       SELECT found.revision FROM (${agentIds}) own CROSS JOIN LATERAL (
         SELECT revision FROM agent_transitions
         WHERE agent_id = own.agent_id AND revision > ? AND revision <= ? ${isClaw ? `AND ${IN_CLAW}` : ""}
         ORDER BY revision ${order} LIMIT ?
       ) found ORDER BY found.revision ${order} LIMIT ?
     )`,
    [
      isClaw ? scope.clawIdentifier : [...scope.agentIds],
      first.toString(),
      last.toString(),
      ...(isClaw ? [scope.clawIdentifier] : []),
      limit,
      limit,
    ],
  );
}
