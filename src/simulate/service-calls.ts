import { type AgentView, agentView, CallError, type ServiceClients } from "harborforge-agents-client";
import type { AgentStatus } from "../../common/contract/enum-names.ts";
import { STATUS_VALUES } from "../../common/contract/enum-values.ts";
import { millisOf } from "../../common/contract/timestamps.ts";

const TIMEOUT_MS = 5_000;

/** The pace of heartbeats, in milliseconds. */
export interface FleetPace {
  readonly intervalMs: number;
  readonly leaseMs: number;
}

/**
 * Reads the pace of heartbeats. Also checks that the service is reachable.
 *
 * @throws CallError
 */
export async function readPace({ agents }: ServiceClients, signal?: AbortSignal): Promise<FleetPace> {
  const { nextHeartbeatIn, leaseTtl } = await agents.getFleet({}, limits(signal));
  const intervalMs = nextHeartbeatIn === undefined ? 10_000 : millisOf(nextHeartbeatIn);
  return { intervalMs, leaseMs: leaseTtl === undefined ? 3 * intervalMs : millisOf(leaseTtl) };
}

export interface AgentRegistration {
  readonly username: string;
  readonly displayName: string;
  readonly agentId: string;
  readonly clawIdentifier: string;
}

/**
 * Makes sure that a user with this agent on this claw exists. Moves an agent from another claw, and creates what is
 * missing.
 *
 * @throws CallError, `USER_HAS_AGENT` if the user has another agent
 */
export async function ensureAgent(
  { agents, users }: ServiceClients,
  registration: AgentRegistration,
  signal?: AbortSignal,
): Promise<AgentView> {
  const { username, agentId, clawIdentifier } = registration;
  const present = await unless("AGENT_NOT_FOUND", agents.getAgent(keyOf("agentId", agentId), limits(signal)));
  if (present?.agent !== undefined) {
    if (present.agent.clawIdentifier === clawIdentifier) return agentView(present.agent);
    const moved = await agents.moveAgent({ agentId, clawIdentifier }, limits(signal));
    return viewOf(moved.agent);
  }
  const made = await unless("USERNAME_TAKEN", users.createUser(registration, limits(signal)));
  if (made !== undefined) return viewOf(made.agent);
  const { user } = await users.getUser(keyOf("username", username), limits(signal));
  const userId = user?.id ?? 0n;
  const created = await agents.createAgent({ userId, agentId, clawIdentifier }, limits(signal));
  return viewOf(created.agent);
}

export interface AgentStatusRequest {
  readonly agentId: string;
  readonly status: Exclude<AgentStatus, "exhausted">;
  /**
   * The revision that the caller knows. The service rejects the change with `REVISION_MISMATCH` if the agent has
   * changed since.
   */
  readonly expectedRevision: bigint;
}

/**
 * Sets an agent's status as a service does.
 *
 * @throws CallError
 */
export async function setAgentStatus(
  { agents }: ServiceClients,
  { agentId, status, expectedRevision }: AgentStatusRequest,
  signal?: AbortSignal,
): Promise<AgentView> {
  const request = { agentId, status: STATUS_VALUES[status], expectedRevision };
  const { agent } = await agents.updateAgentStatus(request, limits(signal));
  return viewOf(agent);
}

function limits(signal: AbortSignal | undefined) {
  return { timeoutMs: TIMEOUT_MS, ...(signal === undefined ? {} : { signal }) };
}

function keyOf<Case extends string>(name: Case, value: string) {
  return { key: { case: name, value } };
}

function viewOf(agent: Parameters<typeof agentView>[0] | undefined): AgentView {
  if (agent === undefined) throw new TypeError("the response has no agent");
  return agentView(agent);
}

/**
 * The response; undefined if the call failed with this reason.
 *
 * @throws CallError for other failures
 */
async function unless<Answer>(reason: string, call: Promise<Answer>): Promise<Answer | undefined> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof CallError && error.reason === reason) return undefined;
    throw error;
  }
}
