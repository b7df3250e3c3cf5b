/**
 * The log of transitions, read directly from its table, and the changes that a watcher must have received by
 * it.
 */
import pg from "pg";

export interface Filter {
  readonly agentIds?: readonly string[];
  readonly userIds?: readonly string[];
  readonly clawIdentifiers?: readonly string[];
  readonly statuses?: readonly string[];
}

export interface Seen {
  readonly id: string;
  readonly userId: string;
  readonly agentId: string;
  readonly claw: string;
  readonly status: string;
  readonly revision: bigint;
}

export interface LogRow {
  readonly revision: bigint;
  readonly id: string;
  readonly userId: string;
  readonly agentId: string;
  readonly before: Seen | undefined;
  readonly after: Seen | undefined;
}

export type ChangeKind = "ENTERED" | "UPDATED" | "LEFT";

interface Row {
  readonly [column: string]: string | null;
}

export async function readLog(url: string): Promise<readonly LogRow[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query<Row>(
      `SELECT revision::text, agent::text, user_id::text, agent_id, from_status, to_status, from_claw_identifier,
         to_claw_identifier, previous_revision::text FROM agent_transitions ORDER BY agent_transitions.revision`,
    );
    return rows.map(rowOf);
  } finally {
    await client.end();
  }
}

function rowOf(row: Row): LogRow {
  const revision = BigInt(row.revision ?? "");
  const who = { id: row.agent ?? "", userId: row.user_id ?? "", agentId: row.agent_id ?? "" };
  const side = (status: string | null | undefined, claw: string | null | undefined, at: bigint): Seen | undefined =>
    status == null || claw == null ? undefined : { ...who, status, claw, revision: at };
  return {
    revision,
    ...who,
    before: side(row.from_status, row.from_claw_identifier, BigInt(row.previous_revision ?? 0)),
    after: side(row.to_status, row.to_claw_identifier, revision),
  };
}

export function passes(filter: Filter, agent: Seen | undefined): boolean {
  if (agent === undefined) return false;
  const { agentIds = [], userIds = [], clawIdentifiers = [], statuses = [] } = filter;
  return (
    (agentIds.length === 0 || agentIds.includes(agent.agentId)) &&
    (userIds.length === 0 || userIds.includes(agent.userId)) &&
    (clawIdentifiers.length === 0 || clawIdentifiers.includes(agent.claw)) &&
    (statuses.length === 0 || statuses.includes(agent.status))
  );
}

export function kindOf(filter: Filter, { before, after }: LogRow): ChangeKind | undefined {
  if (passes(filter, before)) return passes(filter, after) ? "UPDATED" : "LEFT";
  return passes(filter, after) ? "ENTERED" : undefined;
}

/** One line for a set of agents. */
export function textOf(set: ReadonlyMap<string, Seen>): string {
  return [...set.values()]
    .map(
      ({ id, userId, agentId, claw, status, revision }) => `#${id} ${agentId}/${userId} ${claw} ${status} @${revision}`,
    )
    .sort()
    .join("\n");
}

/** The agents that pass a filter at each of these revisions, in their order. */
export function statesAt(log: readonly LogRow[], filter: Filter, revisions: readonly bigint[]): Map<bigint, string> {
  const states = new Map<bigint, string>();
  const set = new Map<string, Seen>();
  let place = 0;
  for (const revision of [...new Set(revisions)].sort((one, other) => (one < other ? -1 : 1))) {
    for (let row = log[place]; row !== undefined && row.revision <= revision; row = log[place]) {
      if (row.after !== undefined && passes(filter, row.after)) set.set(row.id, row.after);
      else set.delete(row.id);
      place += 1;
    }
    states.set(revision, textOf(set));
  }
  return states;
}
