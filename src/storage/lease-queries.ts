import type { Micros } from "../../common/contract/time.ts";
import { toRfc3339 } from "../../common/contract/time.ts";
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

/** The key of pg_try_advisory_xact_lock: one replica runs the backstop at a time. */
const BACKSTOP_LOCK = 7_294_116_530_218_403n;

export interface Renewal {
  readonly id: bigint;
  readonly epoch: bigint;
  readonly revision: bigint;
  /** The length of the new lease, in milliseconds. */
  readonly leaseMs: number;
  /** Whether a session holds the agent, even if other replicas took this one for dead. */
  readonly held: boolean;
}

/**
 * Renews leases. Not durable at once: a crash of the database may lose the last second of renewals.
 *
 * @param renewals at most one for each agent
 * @returns the ids of renewals that did not apply (another session, another revision, or a deleted agent), and the time
 * of the statement
 */
export async function renewLeases(
  database: Database,
  renewals: readonly Renewal[],
): Promise<{ readonly missed: ReadonlySet<bigint>; readonly appliedAt: Micros }> {
  const sorted = [...renewals].sort((a, b) => (a.id < b.id ? -1 : 1));
  // PostgreSQL's text format of arrays: the driver's own conversion inspects each value, which is slower.
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
  if (row === undefined) throw new TypeError("renew-leases returned no row");
  database.clock.observe(row.read_at, sentAt);
  return { missed: new Set(row.missed.map(BigInt)), appliedAt: row.read_at };
}

export interface Claim extends Claimant {
  readonly agentId: string;
  readonly clawIdentifier: string | undefined;
  /** Whether the session takes wakes. Default false. */
  readonly takesWakes?: boolean;
}

/**
 * Claims agents for sessions of this replica. Renews the lease of an agent that has less than two thirds of `leaseMs`
 * left.
 *
 * @param claims at most one for each agent
 * @param leaseMs milliseconds
 * @returns the agents that exist, as they are afterwards, and the epochs of the claimed ones
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
    claims.map(({ takesWakes }) => takesWakes ?? false),
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

/**
 * Uses the string objects of the session: this saves memory for a large fleet, and comparing identical objects is fast.
 */
function withNamesOf(claim: Claim | undefined, agent: Agent): Agent {
  if (claim === undefined) return agent;
  const clawIdentifier = claim.clawIdentifier === agent.clawIdentifier ? claim.clawIdentifier : agent.clawIdentifier;
  return { ...agent, agentId: claim.agentId, clawIdentifier };
}

/** Marks agents as not held by these sessions, whose streams have ended. */
export async function releaseAgents(
  database: Database,
  releases: readonly { readonly id: bigint; readonly epoch: bigint }[],
): Promise<void> {
  const sorted = [...releases].sort((a, b) => (a.id < b.id ? -1 : 1));
  const values = [sorted.map(({ id }) => id), sorted.map(({ epoch }) => epoch)];
  await database.beats.query({ ...RELEASE_AGENTS, values });
}

/** An agent whose lease a replica watches. */
export interface TrackedLease {
  readonly id: bigint;
  readonly agentId: string;
  /** Null: the agent is offline. */
  readonly leaseExpiresAt: Micros | null;
}

export interface LeaseRow {
  readonly id: bigint;
  readonly agent_id: string;
  readonly lease_expires_at: Micros | null;
}

export function trackedLease(row: LeaseRow): TrackedLease {
  return { id: row.id, agentId: row.agent_id, leaseExpiresAt: row.lease_expires_at };
}

/** Expired leases that no replica noticed. Empty while another replica searches. */
export async function overdueLeases(database: Database): Promise<TrackedLease[]> {
  const { rows } = await database.feed.query<LeaseRow>({ ...OVERDUE_LEASES, values: [BACKSTOP_LOCK] });
  return rows.map(trackedLease);
}

export interface DueRecovery {
  readonly id: bigint;
  readonly agentId: string;
  readonly recoveryAt: Micros;
}

/** Rows of one page of `dueRecoveries`. The query has the same number. */
export const DUE_PAGE = 5_000;

/**
 * Exhaustions that end before `beforeSecond` (Unix seconds), in order of their ends, after a position. One page has at
 * most 5,000.
 */
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

/**
 * Marks agents as not held that a restored database attributes to this replica, and that this replica does not hold.
 */
export async function releaseForgotten(
  database: Database,
  replica: number,
  held: readonly { readonly id: bigint; readonly epoch: bigint }[],
): Promise<void> {
  const values = [replica, held.map(({ id }) => id.toString()), held.map(({ epoch }) => epoch.toString())];
  await database.feed.query({ ...RELEASE_FORGOTTEN, values });
}
