import type { Knex } from "knex";
import type { QueryBuilder } from "objection";
import type { Transition } from "../domain/agent.ts";
import type { Page, TransitionQuery } from "../domain/directory.ts";
import type { AgentScope } from "../domain/principal.ts";
import { IncompleteLogRead } from "./failures.ts";
import { checkRevision, isLogVisible, readLogPosition } from "./log-position.ts";
import { AgentTransition } from "./models/agent-transition.ts";
import { pageOf } from "./page.ts";
import { readSnapshot } from "./retries.ts";

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
  return await readSnapshot(knex, async (snapshot) => {
    const position = await readLogPosition(snapshot);
    if (query.upTo === undefined && !(await isLogVisible(snapshot, position))) throw new IncompleteLogRead();
    const upTo = query.upTo ?? position.newest;
    const from = newestFirst ? afterRevision : (after ?? afterRevision);
    if (from > 0n) await checkRevision(snapshot, from, position);
    // What is given up is not told any more, although it may be there for a while: the next page could not go on from it.
    const first = from > position.oldest ? from : position.oldest;
    const last = newestFirst && after !== undefined ? after - 1n : upTo;
    const order = newestFirst ? "desc" : "asc";
    const page = AgentTransition.query(snapshot)
      .where("revision", ">", first.toString())
      .where("revision", "<=", last.toString())
      .orderBy("revision", order)
      .limit(limit + 1);
    if (agentId !== undefined) page.where("agent_id", agentId);
    if (scope !== undefined && agentId === undefined) ofSeveral(page, scope, { first, last, order, limit: limit + 1 });
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

/** What an agent went through elsewhere is not a claw's to read; how it came and left is. */
const IN_CLAW = "? IN (from_claw_identifier, to_claw_identifier)";

interface Stretch {
  /** Exclusive. */
  readonly first: bigint;
  /** Inclusive. */
  readonly last: bigint;
  readonly order: "asc" | "desc";
  readonly limit: number;
}

/**
 * Only what became of these agents; of a claw, those that live there now. The log is found by agents, one after the other,
 * for as many of their transitions as the page can hold: left to choose, the planner may go through the whole log for the
 * few that are asked for, and whoever asks is who is trusted least.
 */
function ofSeveral(page: QueryBuilder<AgentTransition>, scope: AgentScope, stretch: Stretch): void {
  const { first, last, order, limit } = stretch;
  const isClaw = scope.kind === "claw";
  const whose = isClaw
    ? "SELECT agent_id FROM agents WHERE claw_identifier = ?"
    : "SELECT unnest(?::text[]) AS agent_id";
  page.whereRaw(
    `revision IN (
       SELECT found.revision FROM (${whose}) own CROSS JOIN LATERAL (
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
