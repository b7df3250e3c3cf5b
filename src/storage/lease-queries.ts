import type { Micros } from "../contract/time.ts";
import { toRfc3339 } from "../contract/time.ts";
import type { Agent } from "../domain/agent.ts";
import type { Claimant } from "../domain/session-start.ts";
import { readAgents } from "./change-group.ts";
import type { Database } from "./database.ts";
import { namedQuery } from "./queries.ts";

const RENEW_LEASES = namedQuery("renew-leases");
const CLAIM_AGENTS = namedQuery("claim-agents");
const RELEASE_FORGOTTEN = namedQuery("release-forgotten");
const RELEASE_AGENTS = namedQuery("release-agents");
const OVERDUE_LEASES = namedQuery("overdue-leases");
const DUE_RECOVERIES = namedQuery("due-recoveries");

/** Of pg_try_advisory_xact_lock: whose turn the backstop is. */
const BACKSTOP_LOCK = 7_294_116_530_218_403n;

export interface Renewal {
  readonly id: bigint;
  readonly epoch: bigint;
  readonly revision: bigint;
  readonly leaseMs: number;
  /** A session holds the agent, whatever those thought who took its replica for dead. */
  readonly held: boolean;
}

/**
 * Renews leases. Not durable at once: a crash of the database may lose the last second of it.
 *
 * @param renewals at most one for each agent
 * @returns the ids of those that did not apply: another session, another revision, or no such agent any more
 */
export async function renewLeases(
  database: Database,
  renewals: readonly Renewal[],
): Promise<{ readonly missed: ReadonlySet<bigint>; readonly appliedAt: Micros }> {
  const sorted = [...renewals].sort((a, b) => (a.id < b.id ? -1 : 1));
  // As PostgreSQL reads arrays: the driver would look at each value what it is, and how to quote it.
  const values = [
    `{${sorted.map(({ id }) => id).join()}}`,
    `{${sorted.map(({ epoch }) => epoch).join()}}`,
    `{${sorted.map(({ revision }) => revision).join()}}`,
    `{${sorted.map(({ leaseMs }) => leaseMs).join()}}`,
    `{${sorted.map(({ held }) => held).join()}}`,
  ];
  const sentAt = performance.now();
  const { rows } = await database.beats.query<{ missed: string[]; read_at: Micros }>({ ...RENEW_LEASES, values });
  const [row] = rows;
  if (row === undefined) throw new TypeError("renew-leases answers with one row");
  database.clock.observe(row.read_at, sentAt);
  return { missed: new Set(row.missed.map(BigInt)), appliedAt: row.read_at };
}

export interface Claim extends Claimant {
  readonly agentId: string;
  readonly clawIdentifier: string | undefined;
}

/**
 * Claims agents for sessions of this replica. Renews the lease of an agent where less than two thirds of `leaseMs` are left.
 *
 * @param claims at most one for each agent
 * @param leaseMs milliseconds
 * @returns the agents as they are afterwards (those that exist), and the epochs of those that were claimed
 */
export async function claimAgents(
  database: Database,
  replica: number,
  claims: readonly Claim[],
  leaseMs: number,
): Promise<{ readonly agents: ReadonlyMap<string, Agent>; readonly epochs: ReadonlyMap<bigint, bigint> }> {
  const values = [
    claims.map(({ agentId }) => agentId),
    claims.map(({ clawIdentifier }) => clawIdentifier ?? null),
    claims.map(({ instance }) => instance ?? null),
    claims.map(({ generation }) => generation.toString()),
    claims.map(({ fresh }) => fresh),
    claims.map(({ resumes }) => resumes),
    replica,
    Math.round(leaseMs),
    claims.map(({ heldUnder }) => heldUnder?.toString() ?? null),
  ];
  const { rows } = await database.commits.query<{ agent: bigint; epoch: bigint }>({ ...CLAIM_AGENTS, values });
  const agentIds = claims.map(({ agentId }) => agentId);
  const agents = await readAgents(database.commits, database.clock, { ids: [], agentIds });
  const claimed = new Map(claims.map((claim) => [claim.agentId, claim]));
  return {
    agents: new Map(agents.map((agent) => [agent.agentId, withNamesOf(claimed.get(agent.agentId), agent)])),
    epochs: new Map(rows.map((row) => [row.agent, row.epoch])),
  };
}

/** By the very strings that the session has: of a large fleet's names one copy is kept, and they are compared at a glance. */
function withNamesOf(claim: Claim | undefined, agent: Agent): Agent {
  if (claim === undefined) return agent;
  const clawIdentifier = claim.clawIdentifier === agent.clawIdentifier ? claim.clawIdentifier : agent.clawIdentifier;
  return { ...agent, agentId: claim.agentId, clawIdentifier };
}

/** Ends the hold of sessions whose streams are gone. */
export async function releaseAgents(
  database: Database,
  releases: readonly { readonly id: bigint; readonly epoch: bigint }[],
): Promise<void> {
  const sorted = [...releases].sort((a, b) => (a.id < b.id ? -1 : 1));
  const values = [sorted.map(({ id }) => id), sorted.map(({ epoch }) => epoch)];
  await database.beats.query({ ...RELEASE_AGENTS, values });
}

/** An agent whose lease somebody has to watch. */
export interface WatchedLease {
  readonly id: bigint;
  readonly agentId: string;
  /** Null: it is offline. */
  readonly leaseExpiresAt: Micros | null;
}

export interface LeaseRow {
  readonly id: bigint;
  readonly agent_id: string;
  readonly lease_expires_at: Micros | null;
}

export function watchedLease(row: LeaseRow): WatchedLease {
  return { id: row.id, agentId: row.agent_id, leaseExpiresAt: row.lease_expires_at };
}

/** Leases that ended and that no replica noticed; none where another replica is looking at this moment. */
export async function overdueLeases(database: Database): Promise<WatchedLease[]> {
  const { rows } = await database.feed.query<LeaseRow>({ ...OVERDUE_LEASES, values: [BACKSTOP_LOCK] });
  return rows.map(watchedLease);
}

export interface DueRecovery {
  readonly id: bigint;
  readonly agentId: string;
  readonly recoveryAt: Micros;
}

/** Rows of one page of `dueRecoveries`; the query says the same. */
export const DUE_PAGE = 5_000;

/** Exhaustions that end before `beforeSecond` (unix seconds), after a place in the order of their ends; a page of 5 000. */
export async function dueRecoveries(
  database: Database,
  beforeSecond: number,
  after: { readonly recoveryAt: Micros; readonly id: bigint },
): Promise<DueRecovery[]> {
  const sentAt = performance.now();
  const values = [beforeSecond, toRfc3339(after.recoveryAt), after.id];
  const { rows } = await database.feed.query<{ id: bigint; agent_id: string; recovery_at: Micros; read_at: Micros }>({
    ...DUE_RECOVERIES,
    values,
  });
  const [first] = rows;
  if (first !== undefined) database.clock.observe(first.read_at, sentAt);
  return rows.map((row) => ({ id: row.id, agentId: row.agent_id, recoveryAt: row.recovery_at }));
}

/** Ends sessions of this replica that a restore brought back, and that are not among those that it has. */
export async function releaseForgotten(
  database: Database,
  replica: number,
  held: readonly { readonly id: bigint; readonly epoch: bigint }[],
): Promise<void> {
  const values = [replica, held.map(({ id }) => id.toString()), held.map(({ epoch }) => epoch.toString())];
  await database.feed.query({ ...RELEASE_FORGOTTEN, values });
}
