import type pg from "pg";
import type { Micros } from "../../common/contract/time.ts";
import type { Agent, User } from "../domain/agent.ts";
import type { RequestKey } from "../domain/directories.ts";
import { type AgentWrite, type Committed, lapsesToAfter, memberOf } from "./agent-change.ts";
import { type AgentRow, agentFromRow, userFromRow } from "./agent-row.ts";
import type { DatabaseClock } from "./clock.ts";
import { namedQuery } from "./queries.ts";
import { type OfferLimit, wakeMembersOf } from "./wake-change.ts";

const READ_AGENTS = namedQuery("agents-to-judge");
const READ_ANSWERS = namedQuery("read-answers");
const UNLOCKED_AGENTS = namedQuery("unlocked-agents");
const COMMIT_CHANGES = namedQuery("commit-changes");
const COMMIT_WITH_WAKES = namedQuery("commit-with-wakes");

/** The stored response to the first attempt of a request. */
export interface FirstAnswer {
  readonly fingerprint: string;
  readonly agent: Agent | undefined;
  readonly user: User | undefined;
  readonly revision: bigint | null;
}

export type MemberOutcome =
  | { readonly kind: "committed"; readonly committed: Committed }
  /** Another change came first: judge it again. */
  | { readonly kind: "stale" }
  /** Its deadline had passed by the database's clock. Nothing was changed. */
  | { readonly kind: "late" }
  | { readonly kind: "conflict"; readonly constraint: string }
  /** The lease must not expire yet, or the deadline of a wake. Ask again at `until`. */
  | { readonly kind: "guarded"; readonly until: Micros }
  /** The rate limit of offers, or that of open offers of a claw. Nothing was changed. */
  | { readonly kind: "limited"; readonly limit: OfferLimit };

/** The limits of offers. */
export interface OfferLimits {
  /** Of the whole deployment. */
  readonly perSecond: number;
  /** Open offers. */
  readonly perClaw: number;
}

interface UserColumns {
  readonly usr_id: bigint | null;
  readonly usr_username: string | null;
  readonly usr_email: string | null;
  readonly usr_display_name: string | null;
  readonly usr_created_at: Micros | null;
  readonly usr_agent_id: string | null;
}

interface OutcomeRow extends AgentRow, UserColumns {
  readonly n: number;
  readonly outcome: "committed" | "stale" | "late" | "conflict" | "guarded" | "limited";
  readonly detail: string | null;
  readonly given_revision: bigint | null;
  readonly read_at: Micros;
}

interface AnswerRow extends AgentRow, UserColumns {
  readonly principal: string;
  readonly request_id: string;
  readonly fingerprint: string;
  readonly answer_revision: bigint | null;
  readonly has_agent: boolean;
}

/** Reads the current state of agents. */
export async function readAgents(
  pool: pg.Pool,
  clock: DatabaseClock,
  keys: { readonly ids: readonly bigint[]; readonly agentIds: readonly string[] },
): Promise<Agent[]> {
  const sentAt = performance.now();
  const { rows } = await pool.query<AgentRow & { read_at: Micros }>({
    ...READ_AGENTS,
    values: [keys.ids, keys.agentIds],
  });
  const [first] = rows;
  if (first !== undefined) clock.observe(first.read_at, sentAt);
  return rows.map(agentFromRow);
}

/**
 * The agents that another transaction has locked at this moment, and those that do not exist. Empty if the query fails.
 */
export async function lockedAgents(pool: pg.Pool, agentIds: readonly string[]): Promise<ReadonlySet<string>> {
  try {
    const { rows } = await pool.query<{ agent_id: string }>({ ...UNLOCKED_AGENTS, values: [agentIds] });
    const unlocked = new Set(rows.map((row) => row.agent_id));
    return new Set(agentIds.filter((agentId) => !unlocked.has(agentId)));
  } catch {
    return new Set();
  }
}

/** The stored responses of requests that were repeated. */
export class FirstAnswers {
  readonly #byPrincipal = new Map<string, Map<string, FirstAnswer>>();

  static async read(pool: pg.Pool, requests: readonly RequestKey[]): Promise<FirstAnswers> {
    const answers = new FirstAnswers();
    if (requests.length === 0) return answers;
    const { rows } = await pool.query<AnswerRow>({
      ...READ_ANSWERS,
      values: [requests.map(({ principal }) => principal), requests.map(({ id }) => id)],
    });
    for (const row of rows) answers.#add(row);
    return answers;
  }

  of({ principal, id }: RequestKey): FirstAnswer | undefined {
    return this.#byPrincipal.get(principal)?.get(id);
  }

  #add(row: AnswerRow): void {
    let answers = this.#byPrincipal.get(row.principal);
    if (answers === undefined) {
      answers = new Map();
      this.#byPrincipal.set(row.principal, answers);
    }
    answers.set(row.request_id, {
      fingerprint: row.fingerprint,
      agent: row.has_agent ? agentFromRow(row) : undefined,
      user: userOf(row),
      revision: row.answer_revision,
    });
  }
}

/** One write of a group. */
export interface Member {
  readonly write: AgentWrite;
  readonly actor: string;
  readonly request: RequestKey | undefined;
  /** When its caller stops waiting, of `performance.now()`. Undefined: no limit. */
  readonly deadline: number | undefined;
}

/**
 * Commits a group in one transaction.
 *
 * @returns the outcomes, in the order of the members
 */
export async function commitGroup(
  client: pg.ClientBase,
  clock: DatabaseClock,
  replica: number,
  members: readonly Member[],
  limits: OfferLimits,
): Promise<MemberOutcome[]> {
  if (!clock.isRead && members.some(({ deadline }) => deadline !== undefined)) await readClock(client, clock);
  const json = JSON.stringify(
    members.map(({ write, actor, request, deadline }, n) =>
      memberOf(n, write, actor, request, deadline === undefined ? undefined : clock.atLeast(deadline)),
    ),
  );
  const sentAt = performance.now();
  // Most groups have no agent with wakes, and the other function would take longer for them.
  const { rows } = await client.query<OutcomeRow>(
    members.some(hasWakes)
      ? {
          ...COMMIT_WITH_WAKES,
          values: [replica, json, wakeChangesOf(members), limits.perSecond, limits.perClaw],
        }
      : { ...COMMIT_CHANGES, values: [replica, json] },
  );
  const [first] = rows;
  if (first !== undefined) clock.observe(first.read_at, sentAt);
  const outcomes = new Map(rows.map((row) => [row.n, outcomeOf(row, members[row.n])]));
  return members.map((_, n) => outcomes.get(n) ?? { kind: "stale" });
}

/** An agent that had no wakes when it was read has none: each change of a wake moves its revision, and the commit is stale. */
function hasWakes({ write }: Member): boolean {
  if (write.kind === "create") return false;
  return write.agent.wakes !== null || (write.kind === "update" && (write.wakes ?? []).length > 0);
}

function wakeChangesOf(members: readonly Member[]): string {
  return JSON.stringify(
    members.flatMap(({ write }, n) => (write.kind === "update" ? wakeMembersOf(n, write.wakes ?? []) : [])),
  );
}

async function readClock(client: pg.ClientBase, clock: DatabaseClock): Promise<void> {
  const sentAt = performance.now();
  const { rows } = await client.query<{ read_at: Micros }>("SELECT clock_timestamp() AS read_at");
  const [row] = rows;
  if (row !== undefined) clock.observe(row.read_at, sentAt);
}

function outcomeOf(row: OutcomeRow, member: Member | undefined): MemberOutcome {
  switch (row.outcome) {
    case "committed":
      return {
        kind: "committed",
        committed: {
          agent: withLapse(agentFromRow(row), member),
          revision: row.given_revision,
          user: userOf(row),
          silentClaw: row.detail ?? undefined,
        },
      };
    case "stale":
    case "late":
      return { kind: row.outcome };
    case "guarded":
      return { kind: "guarded", until: Number(row.detail) };
    case "limited":
      return { kind: "limited", limit: row.detail === "offersPerClaw" ? "offersPerClaw" : "wakesPerSecond" };
    case "conflict":
      return { kind: "conflict", constraint: row.detail ?? "unknown" };
  }
}

function userOf(row: UserColumns): User | undefined {
  if (row.usr_id === null || row.usr_username === null || row.usr_created_at === null) return undefined;
  return userFromRow({
    id: row.usr_id,
    username: row.usr_username,
    email: row.usr_email,
    display_name: row.usr_display_name ?? "",
    created_at: row.usr_created_at,
    agent_id: row.usr_agent_id,
  });
}

/** Only a claim needs another object. */
function withLapse(agent: Agent, member: Member | undefined): Agent {
  const lapsesTo = member === undefined ? null : lapsesToAfter(member.write);
  return lapsesTo === null ? agent : { ...agent, lapsesTo };
}
