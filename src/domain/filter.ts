import type { AgentStatus, ChangeType, Unknown } from "../../common/contract/enum-names.ts";
import type { Agent, NamedWake, Transition } from "./agent.ts";

/** A filter of agents: OR within a field, AND across fields. An empty field matches all agents. */
export interface AgentFilter {
  readonly agentIds: readonly string[];
  readonly userIds: readonly bigint[];
  readonly clawIdentifiers: readonly string[];
  readonly statuses: readonly AgentStatus[];
}

export const EVERY_AGENT: AgentFilter = { agentIds: [], userIds: [], clawIdentifiers: [], statuses: [] };

/** The fields of an agent that a filter reads. */
export interface Filterable {
  readonly agentId: string;
  readonly userId: bigint;
  readonly clawIdentifier: string;
  readonly status: AgentStatus | Unknown;
}

/** A filter prepared for many agents. */
export type AgentPredicate = (agent: Filterable) => boolean;

/** Prepares a filter for many agents. */
export function predicateOf(filter: AgentFilter): AgentPredicate {
  const agentIds = new Set(filter.agentIds);
  const userIds = new Set(filter.userIds);
  const claws = new Set(filter.clawIdentifiers);
  const statuses = new Set<AgentStatus | Unknown>(filter.statuses);
  return (agent) =>
    (agentIds.size === 0 || agentIds.has(agent.agentId)) &&
    (userIds.size === 0 || userIds.has(agent.userId)) &&
    (claws.size === 0 || claws.has(agent.clawIdentifier)) &&
    (statuses.size === 0 || statuses.has(agent.status));
}

/**
 * How a transition moves its agent relative to a filter. Undefined: the agent is outside of the filter before and
 * after.
 */
export function changeType(transition: Transition, passes: AgentPredicate): ChangeType | undefined {
  const before = isBefore(transition) && passes(side(transition, transition.fromStatus, transition.fromClaw));
  const after = isAfter(transition) && passes(side(transition, transition.toStatus, transition.toClaw));
  if (before) return after ? "updated" : "left";
  return after ? "entered" : undefined;
}

type Before = Transition & { readonly fromStatus: AgentStatus | Unknown; readonly fromClaw: string };
type After = Transition & { readonly toStatus: AgentStatus | Unknown; readonly toClaw: string };

function isBefore(transition: Transition): transition is Before {
  return transition.fromStatus !== null && transition.fromClaw !== null;
}

function isAfter(transition: Transition): transition is After {
  return transition.toStatus !== null && transition.toClaw !== null;
}

function side(transition: Transition, status: AgentStatus | Unknown, clawIdentifier: string): Filterable {
  return { agentId: transition.agentId, userId: transition.userId, clawIdentifier, status };
}

/** The fields of an agent that watchers see. They change only by transitions. */
export type WatchedAgent = Omit<
  Agent,
  | "backoff"
  | "hold"
  | "lapsesTo"
  | "epoch"
  | "held"
  | "lastHeartbeat"
  | "leaseExpiresAt"
  | "replicaId"
  | "suspectSince"
  | "wakes"
> & {
  /** Its open wake. An agent that was read whole has it in `wakes`. */
  readonly openWake?: NamedWake;
};

/** The agent right after a transition; for a deletion, right before it. */
export function agentOf(transition: Transition): WatchedAgent {
  const { id, agentId, userId, exhaustion, createdAt, statusChangedAt } = transition;
  const wake = transition.openWake === null ? {} : { openWake: transition.openWake };
  const common = { id, agentId, userId, exhaustion, createdAt, statusChangedAt, ...wake };
  if (isAfter(transition)) {
    const { toStatus: status, toClaw: clawIdentifier, revision } = transition;
    return { ...common, status, clawIdentifier, revision };
  }
  if (isBefore(transition)) {
    const { fromStatus: status, fromClaw: clawIdentifier, previousRevision, revision } = transition;
    return { ...common, status, clawIdentifier, revision: previousRevision ?? revision };
  }
  throw new TypeError(`transition ${transition.revision} has neither a before nor an after`);
}
