import type { Knex } from "knex";
import type { QueryBuilder } from "objection";
import type { Transition } from "../domain/agent.ts";
import type { Page, TransitionQuery } from "../domain/directory.ts";
import type { AgentScope } from "../domain/principal.ts";
import { readingSnapshot } from "./attempts.ts";
import { checkRevision, readLogPosition } from "./log-position.ts";
import { AgentTransition } from "./models/agent-transition.ts";
import { pageOf } from "./page.ts";

/**
 * A page of the log, of one `agentId` or of all.
 *
 * @throws Refusal `REVISION_COMPACTED`, `REVISION_IN_FUTURE` for `afterRevision`; also for a page that goes on where
 * the log was compacted since the page before: a list has no holes.
 */
export async function listTransitions(
  knex: Knex,
  query: TransitionQuery,
): Promise<Page<Transition> & { readonly upTo: bigint }> {
  const { agentId, scope, afterRevision, newestFirst, after, limit } = query;
  return await readingSnapshot(knex, async (snapshot) => {
    const position = await readLogPosition(snapshot);
    const upTo = query.upTo ?? position.newest;
    const from = newestFirst ? afterRevision : (after ?? afterRevision);
    if (from > 0n) await checkRevision(snapshot, from, position);
    // What is given up is not told any more, although it may be there for a while: the next page could not go on from it.
    const first = from > position.oldest ? from : position.oldest;
    const page = AgentTransition.query(snapshot)
      .where("revision", ">", first.toString())
      .where("revision", "<=", upTo.toString())
      .orderBy("revision", newestFirst ? "desc" : "asc")
      .limit(limit + 1);
    if (newestFirst && after !== undefined) page.where("revision", "<", after.toString());
    if (agentId !== undefined) page.where("agent_id", agentId);
    if (scope !== undefined) bound(page, scope, agentId);
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

/**
 * The log is found by agents, not by claws: of a claw as a whole it shows the agents that live there now. What they, or
 * one that was asked for, went through elsewhere is not shown; how they came and left is.
 */
function bound(page: QueryBuilder<AgentTransition>, scope: AgentScope, agentId: string | undefined): void {
  if (scope.kind === "agents") {
    if (agentId === undefined) page.whereIn("agent_id", [...scope.agentIds]);
    return;
  }
  const { clawIdentifier } = scope;
  if (agentId === undefined) {
    page.whereRaw("agent_id IN (SELECT agent_id FROM agents WHERE claw_identifier = ?)", [clawIdentifier]);
  }
  page.whereRaw("? IN (from_claw_identifier, to_claw_identifier)", [clawIdentifier]);
}
