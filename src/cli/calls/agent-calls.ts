import { type AgentView, CallError, type ServiceClients } from "harborforge-agents-client";
import { agentView, answered } from "harborforge-agents-client/internal";
import { STATUS_VALUES } from "../../contract/enums.ts";
import { millisOf } from "../../contract/timestamps.ts";
import type { AgentStatus } from "../../contract/words.ts";

const PATIENCE_MS = 5_000;

/** How the service deals with heartbeats, in milliseconds. */
export interface FleetPace {
  readonly intervalMs: number;
  readonly leaseMs: number;
}

/** Asks for the pace of heartbeats, which also tells whether the service is there. @throws CallError */
export async function readPace({ agents }: ServiceClients, signal?: AbortSignal): Promise<FleetPace> {
  const { nextHeartbeatIn, leaseTtl } = await answered(agents.getFleet({}, limits(signal)));
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
 * Sees to it that a user with that agent on that claw exists. What is there is adopted: an agent on another claw is
 * moved, one that is missing is created.
 *
 * @throws CallError, `USER_HAS_AGENT` when the user has another agent
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
    const moved = await answered(agents.moveAgent({ agentId, clawIdentifier }, limits(signal)));
    return viewOf(moved.agent);
  }
  const made = await unless("USERNAME_TAKEN", users.createUser(registration, limits(signal)));
  if (made !== undefined) return viewOf(made.agent);
  const { user } = await answered(users.getUser(keyOf("username", username), limits(signal)));
  const userId = user?.id ?? 0n;
  const created = await answered(agents.createAgent({ userId, agentId, clawIdentifier }, limits(signal)));
  return viewOf(created.agent);
}

export interface StatusChange {
  readonly agentId: string;
  readonly status: Exclude<AgentStatus, "exhausted">;
  /** The agent as it was when this was decided; refused with `REVISION_MISMATCH` when it changed since. */
  readonly expectedRevision: bigint;
}

/** Sets an agent's status as a service does. @throws CallError */
export async function setAgentStatus(
  { agents }: ServiceClients,
  { agentId, status, expectedRevision }: StatusChange,
  signal?: AbortSignal,
): Promise<AgentView> {
  const request = { agentId, status: STATUS_VALUES[status], expectedRevision };
  const { agent } = await answered(agents.updateAgentStatus(request, limits(signal)));
  return viewOf(agent);
}

function limits(signal: AbortSignal | undefined) {
  return { timeoutMs: PATIENCE_MS, ...(signal === undefined ? {} : { signal }) };
}

function keyOf<Case extends string>(name: Case, value: string) {
  return { key: { case: name, value } };
}

function viewOf(agent: Parameters<typeof agentView>[0] | undefined): AgentView {
  if (agent === undefined) throw new TypeError("the service answered without the agent");
  return agentView(agent);
}

/** The answer, or undefined when the call was refused for this reason. @throws CallError for any other */
async function unless<Answer>(reason: string, call: Promise<Answer>): Promise<Answer | undefined> {
  try {
    return await answered(call);
  } catch (error) {
    if (error instanceof CallError && error.reason === reason) return undefined;
    throw error;
  }
}
