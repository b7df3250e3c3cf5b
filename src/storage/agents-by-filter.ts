import type { Knex } from "knex";
import type { QueryBuilder } from "objection";
import type { AgentStatus, Unknown } from "../../common/contract/enum-names.ts";
import type { Micros } from "../../common/contract/time.ts";
import type { Agent as AgentValue } from "../domain/agent.ts";
import type { ExpiryBrake, Fleet, Page, PageQuery } from "../domain/directories.ts";
import type { AgentFilter } from "../domain/filter.ts";
import { statusOf } from "./agent-row.ts";
import { readLogPosition } from "./log-position.ts";
import { Agent } from "./models/agent.ts";
import { pageOf } from "./page.ts";
import { readSnapshot } from "./retries.ts";

/** A page of agents, ordered by `id`, and the revision that it shows. */
export async function listAgents(
  knex: Knex,
  filter: AgentFilter,
  page: PageQuery,
): Promise<Page<AgentValue> & { readonly revision: bigint }> {
  return await readSnapshot(knex, async (snapshot) => {
    const { newest } = await readLogPosition(snapshot);
    // Select the ids first. In a joined query, PostgreSQL reads all liveness rows up to the page, so each page is
    // slower than the one before.
    const query = passing(Agent.query(snapshot).table("agents"), filter)
      .select("id")
      .orderBy("id")
      .limit(page.limit + 1);
    if (page.after !== undefined) query.where("id", ">", page.after.toString());
    const { rows: ids, next } = pageOf(await query, page.limit, ({ id }) => id);
    const agents = await Agent.query(snapshot)
      .select("agent_states.*", snapshot.raw(OPEN_WAKE), snapshot.raw(PAUSE))
      .whereRaw("id = ANY (?)", [ids.map(({ id }) => id)])
      .orderBy("id");
    return { rows: agents.map((agent) => agent.toDomain()), next, revision: newest };
  });
}

const OPEN_WAKE = "(SELECT o.open_wake FROM open_wakes o WHERE o.agent = agent_states.id) AS open_wake";
/** Its own, else that of its claw. */
const PAUSE = `(
  SELECT p.pause FROM pauses_in_force p WHERE p.agent = agent_states.id OR p.claw_identifier = agent_states.claw_identifier
  ORDER BY p.agent LIMIT 1
) AS pause`;

interface CountRow {
  readonly clawIdentifier: string;
  readonly status: string;
  readonly agents: bigint;
}

/** Counts agents by status and claw, as of one revision. */
export async function readFleet(knex: Knex, filter: AgentFilter): Promise<Fleet> {
  return await readSnapshot(knex, async (snapshot) => {
    const { newest } = await readLogPosition(snapshot);
    // Use the table: the count needs no liveness columns, which the view would join.
    const counted = (): QueryBuilder<Agent, Agent[]> =>
      passing(Agent.query(snapshot).table("agents"), filter)
        .select("claw_identifier", "status")
        .count({ agents: "*" })
        .groupBy("claw_identifier", "status");
    const all = new Tally();
    const claws = new Map<string, Tally>();
    const add = (rows: readonly CountRow[], kind: "statuses" | "suspects"): void => {
      for (const { clawIdentifier, status, agents } of rows) {
        const claw = claws.get(clawIdentifier) ?? new Tally();
        claws.set(clawIdentifier, claw);
        for (const tally of [all, claw]) tally.add(kind, statusOf(status), agents);
      }
    };
    add(await counted().castTo<CountRow[]>(), "statuses");
    const brake = await readBrake(snapshot);
    if (brake.engagedAt !== null) add(await counted().whereRaw(IS_LEASE_OVER).castTo<CountRow[]>(), "suspects");
    return { statuses: all.statuses, suspects: all.suspects, claws, brake, revision: newest };
  });
}

/** While the brake is engaged, these agents are suspect. */
const IS_LEASE_OVER = "id IN (SELECT agent FROM agent_liveness WHERE lease_expires_at <= clock_timestamp())";

class Tally {
  readonly statuses = new Map<AgentStatus | Unknown, bigint>();
  readonly suspects = new Map<AgentStatus | Unknown, bigint>();

  add(kind: "statuses" | "suspects", status: AgentStatus | Unknown, agents: bigint): void {
    this[kind].set(status, (this[kind].get(status) ?? 0n) + agents);
  }
}

async function readBrake(snapshot: Knex): Promise<ExpiryBrake> {
  const { rows }: { rows: { engaged_at: Micros; held_back: bigint }[] } = await snapshot.raw(
    `SELECT f.brake_engaged_at AS engaged_at,
       (SELECT count(*) FROM agent_liveness l WHERE l.lease_expires_at <= clock_timestamp()) AS held_back
     FROM fleet_state f WHERE f.brake_engaged_at IS NOT NULL`,
  );
  const [row] = rows;
  return { engagedAt: row?.engaged_at ?? null, heldBack: row?.held_back ?? 0n };
}

/** Applies a filter: OR within a field, AND across fields. A list is one parameter, however long it is. */
function passing(query: QueryBuilder<Agent, Agent[]>, filter: AgentFilter): QueryBuilder<Agent, Agent[]> {
  const fields: [string, readonly unknown[]][] = [
    ["agent_id = ANY (?)", filter.agentIds],
    ["user_id = ANY (?)", filter.userIds],
    ["claw_identifier = ANY (?)", filter.clawIdentifiers],
    ["status = ANY (?)", filter.statuses],
  ];
  for (const [condition, values] of fields) {
    if (values.length > 0) query.whereRaw(condition, [values]);
  }
  return query;
}
