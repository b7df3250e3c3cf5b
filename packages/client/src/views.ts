import {
  type AgentStatus,
  ERROR_REASONS,
  type ErrorReason,
  type ExhaustReason,
  type TransitionCause,
} from "../../../common/contract/enum-names.ts";
import { causeName, exhaustReasonName, statusName, type Unknown } from "../../../common/contract/enum-values.ts";
import type { Micros } from "../../../common/contract/time.ts";
import { dateOf, microsOf, millisOf, timestampOf } from "../../../common/contract/timestamps.ts";
import type {
  Agent as AgentMessage,
  AgentTransition as AgentTransitionMessage,
  Exhaustion as ExhaustionMessage,
} from "../../../gen/client/harborforge/agents/v1/agent_pb.ts";
import type {
  AgentBeatError,
  AgentBeatResult,
  AgentChange as AgentChangeMessage,
  HeartbeatResponse,
} from "../../../gen/client/harborforge/agents/v1/agent_service_pb.ts";
import { type CallCode, codeName } from "./connection/call-error.ts";

// Views are what programs get in place of messages. Their instants are `Date`s, rounded down to the millisecond: compare revisions,
// not instants, to find which change came first.

/** An exhaustion: its reason, and its end by the server's clock. */
export interface ExhaustionView<Instant = Date> {
  readonly reason: ExhaustReason | Unknown;
  /** Undefined for an agent outside the caller's scope. */
  readonly recoveryAt: Instant | undefined;
}

/** An agent, as readers see it. */
export interface AgentView<Instant = Date> {
  /** The number of the row. An agent that is created again under its `agentId` has another one. */
  readonly id: bigint;
  readonly userId: bigint;
  readonly agentId: string;
  readonly clawIdentifier: string;
  /** `unknown` is a status of a newer service: do not wake the agent. */
  readonly status: AgentStatus | Unknown;
  readonly exhaustion: ExhaustionView<Instant> | undefined;
  /** The revision of its last transition. */
  readonly revision: bigint;
  readonly createdAt?: Instant | undefined;
  /** When `status` last changed. */
  readonly statusChangedAt?: Instant | undefined;
  /** Since when it is exhausted. */
  readonly exhaustedAt?: Instant | undefined;
  /** When the service received its newest heartbeat. Undefined before the first one, and in watches. */
  readonly lastHeartbeat?: Instant | undefined;
  /** Until when it counts as alive without another heartbeat. Undefined while it is offline, and in watches. */
  readonly leaseExpiresAt?: Instant | undefined;
  /** The end of its lease, while the brake delays the expiry. Undefined otherwise, and in watches. */
  readonly suspectSince?: Instant | undefined;
}

/** A change of an agent, as readers see it. */
export interface TransitionView<Instant = Date> {
  readonly revision: bigint;
  readonly agentId: string;
  /** Undefined when the agent was created. */
  readonly from: AgentStatus | Unknown | undefined;
  /** Undefined when the agent was deleted. */
  readonly to: AgentStatus | Unknown | undefined;
  readonly cause: TransitionCause | Unknown;
  /** Its role and name, such as `service:calendar`. */
  readonly actor: string;
  readonly occurredAt: Instant;
  readonly exhaustion: ExhaustionView<Instant> | undefined;
  /** Undefined when the agent was deleted. */
  readonly clawIdentifier: string | undefined;
}

/** A change, as watchers get it. */
export interface ChangeView<Instant = Date> {
  /** Whether the agent passes the filter of the watch now. */
  readonly passes: boolean;
  readonly agent: AgentView<Instant>;
  readonly transition: TransitionView<Instant>;
}

/** The result of a beat, or (`sequence` 0) a change or the loss of the agent. */
export interface BeatView {
  readonly kind: "result";
  readonly agentId: string;
  readonly sequence: bigint;
  /** The status on the server; undefined if it sent none. */
  readonly status: AgentStatus | Unknown | undefined;
  readonly exhaustion: ExhaustionView | undefined;
  /** 0 if the server sent none. */
  readonly revision: bigint;
  readonly refusal: BeatRefusal | undefined;
}

/**
 * A message of the service about one agent on a heartbeat stream. All kinds take one way through the client, from the
 * stream to the agent's handle. A new kind is added here and in `messagesOf`; `HeartbeatStream` and `BeatingAgent` act on it.
 */
export type ClawMessageView = BeatView;

export interface BeatRefusal {
  readonly code: CallCode;
  /** Undefined if this version does not know it. */
  readonly reason: ErrorReason | undefined;
  readonly message: string;
  readonly retryAfterMs: number | undefined;
}

type Timestamp = Parameters<typeof microsOf>[0];

/** Reads an instant of a message. */
type ReadInstant<Instant> = (timestamp: Timestamp) => Instant;

/** Conversions of messages to views. */
export interface Views<Instant> {
  readonly agent: (agent: AgentMessage) => AgentView<Instant>;
  readonly transition: (transition: AgentTransitionMessage) => TransitionView<Instant>;
  /** Undefined for a message that no server of this contract sends. */
  readonly change: (change: AgentChangeMessage) => ChangeView<Instant> | undefined;
}

/** The type of a change of an agent that does not pass the filter of the watch any more. */
const LEFT = 3;

function viewsWith<Instant>(read: ReadInstant<Instant>): Views<Instant> {
  const optional = (timestamp: Timestamp | undefined) => (timestamp === undefined ? undefined : read(timestamp));
  const agentView = (agent: AgentMessage): AgentView<Instant> => {
    const { id, userId, agentId, clawIdentifier, revision } = agent;
    const reason = exhaustReasonName(agent.exhaustReason) ?? (agent.recoveryAt === undefined ? undefined : "unknown");
    return {
      id,
      userId,
      agentId,
      clawIdentifier,
      status: statusName(agent.status) ?? "unknown",
      exhaustion: reason === undefined ? undefined : { reason, recoveryAt: optional(agent.recoveryAt) },
      revision,
      createdAt: optional(agent.createdAt),
      statusChangedAt: optional(agent.statusChangedAt),
      exhaustedAt: optional(agent.exhaustedAt),
      lastHeartbeat: optional(agent.lastHeartbeat),
      leaseExpiresAt: optional(agent.leaseExpiresAt),
      suspectSince: optional(agent.suspectSince),
    };
  };
  const transitionView = (transition: AgentTransitionMessage): TransitionView<Instant> => {
    const { revision, agentId, actor, occurredAt, toClawIdentifier } = transition;
    return {
      revision,
      agentId,
      from: sideOf(transition.fromStatus, transition.fromClawIdentifier),
      to: sideOf(transition.toStatus, toClawIdentifier),
      cause: causeName(transition.cause) ?? "unknown",
      actor,
      occurredAt: read(occurredAt ?? timestampOf(0)),
      exhaustion: exhaustionView(transition.exhaustion, read),
      clawIdentifier: toClawIdentifier === "" ? undefined : toClawIdentifier,
    };
  };
  return {
    agent: agentView,
    transition: transitionView,
    change({ type, agent, transition }) {
      if (agent === undefined || transition === undefined) return undefined;
      return { passes: type !== LEFT, agent: agentView(agent), transition: transitionView(transition) };
    },
  };
}

/** Views as programs get them. */
export const views = /* @__PURE__ */ viewsWith(dateOf);

/** The same, with instants exact to the microsecond. */
export const exactViews: Views<Micros> = /* @__PURE__ */ viewsWith(microsOf);

/** An agent of a response, such as that of `getAgent`, as a view. */
export function agentView(agent: AgentMessage): AgentView {
  return views.agent(agent);
}

/** A transition of a response, such as those of `listAgentTransitions`, as a view. */
export function transitionView(transition: AgentTransitionMessage): TransitionView {
  return views.transition(transition);
}

/** The messages of a response, in the order in which they count. */
export function messagesOf({ results }: HeartbeatResponse): ClawMessageView[] {
  return results.map(beatView);
}

function beatView({ agentId, sequence, status, exhaustion, revision, error }: AgentBeatResult): BeatView {
  return {
    kind: "result",
    agentId,
    sequence,
    status: statusName(status),
    exhaustion: exhaustionView(exhaustion, dateOf),
    revision,
    refusal: error === undefined ? undefined : refusalView(error),
  };
}

function refusalView({ code, reason, message, retryAfter }: AgentBeatError): BeatRefusal {
  return {
    code: codeName(code),
    reason: ERROR_REASONS[reason - 1],
    message,
    retryAfterMs: retryAfter === undefined ? undefined : millisOf(retryAfter),
  };
}

/** A service sends UNSPECIFIED also for a status that only newer services know. An agent on a claw has a status. */
function sideOf(status: number, clawIdentifier: string): AgentStatus | Unknown | undefined {
  return statusName(status) ?? (clawIdentifier === "" ? undefined : "unknown");
}

function exhaustionView<Instant>(
  exhaustion: ExhaustionMessage | undefined,
  read: ReadInstant<Instant>,
): ExhaustionView<Instant> | undefined {
  if (exhaustion === undefined) return undefined;
  const { recovery } = exhaustion;
  return {
    reason: exhaustReasonName(exhaustion.reason) ?? "unknown",
    recoveryAt: recovery.case === "recoveryAt" ? read(recovery.value) : undefined,
  };
}
