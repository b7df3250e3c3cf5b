import type { AgentStatus, ExhaustReason, TransitionCause } from "../../../common/contract/enum-names.ts";
import { causeName, exhaustReasonName, statusName, type Unknown } from "../../../common/contract/enum-values.ts";
import type { Micros } from "../../../common/contract/time.ts";
import { microsOf, millisOf } from "../../../common/contract/timestamps.ts";
import type {
  Agent as AgentMessage,
  AgentTransition as AgentTransitionMessage,
  Exhaustion as ExhaustionMessage,
} from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  type AgentBeatError,
  type AgentBeatResult,
  type AgentChange as AgentChangeMessage,
  AgentChangeType,
  type HeartbeatResponse,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { ErrorReasonSchema } from "../../../gen/harborforge/agents/v1/error_reason_pb.ts";

/** An exhaustion: its reason, and its end by the server's clock. */
export interface ExhaustionView {
  readonly reason: ExhaustReason | Unknown;
  readonly recoveryAt: Micros | undefined;
}

/** An agent, as readers see it. */
export interface AgentView {
  readonly id: bigint;
  readonly userId: bigint;
  readonly agentId: string;
  readonly clawIdentifier: string;
  readonly status: AgentStatus | Unknown;
  readonly exhaustion: ExhaustionView | undefined;
  readonly revision: bigint;
  readonly createdAt?: Micros | undefined;
  /** When `status` last changed. */
  readonly statusChangedAt?: Micros | undefined;
  /** Since when it is exhausted. */
  readonly exhaustedAt?: Micros | undefined;
}

/** A change of an agent, as readers see it. */
export interface TransitionView {
  readonly revision: bigint;
  readonly agentId: string;
  /** Undefined when the agent was created. */
  readonly from: AgentStatus | Unknown | undefined;
  /** Undefined when the agent was deleted. */
  readonly to: AgentStatus | Unknown | undefined;
  readonly cause: TransitionCause | Unknown;
  readonly actor: string;
  readonly occurredAt: Micros;
  readonly exhaustion: ExhaustionView | undefined;
  /** Undefined when the agent was deleted. */
  readonly clawIdentifier: string | undefined;
}

/** A change, as watchers get it. */
export interface ChangeView {
  /** Whether the agent passes the filter of the watch now. */
  readonly passes: boolean;
  readonly agent: AgentView;
  readonly transition: TransitionView;
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
  /** A value of ErrorReason without its prefix; undefined if this client does not know it. */
  readonly reason: string | undefined;
  readonly message: string;
  readonly retryAfterMs: number | undefined;
}

export function agentView(agent: AgentMessage): AgentView {
  const { id, userId, agentId, clawIdentifier, revision } = agent;
  const [recoveryAt, exhaustedAt] = [instant(agent.recoveryAt), instant(agent.exhaustedAt)];
  const reason = exhaustReasonName(agent.exhaustReason);
  return {
    id,
    userId,
    agentId,
    clawIdentifier,
    status: statusName(agent.status) ?? "unknown",
    exhaustion: reason === undefined ? undefined : { reason, recoveryAt },
    revision,
    createdAt: instant(agent.createdAt),
    statusChangedAt: instant(agent.statusChangedAt),
    exhaustedAt,
  };
}

function instant(timestamp: Parameters<typeof microsOf>[0] | undefined): Micros | undefined {
  return timestamp === undefined ? undefined : microsOf(timestamp);
}

/** Undefined for a message that no server of this contract sends. */
export function changeView({ type, agent, transition }: AgentChangeMessage): ChangeView | undefined {
  if (agent === undefined || transition === undefined) return undefined;
  return {
    passes: type !== AgentChangeType.LEFT,
    agent: agentView(agent),
    transition: transitionView(transition),
  };
}

export function transitionView(transition: AgentTransitionMessage): TransitionView {
  const { revision, agentId, actor, occurredAt, toClawIdentifier } = transition;
  return {
    revision,
    agentId,
    from: statusName(transition.fromStatus),
    to: statusName(transition.toStatus),
    cause: causeName(transition.cause) ?? "unknown",
    actor,
    occurredAt: occurredAt === undefined ? 0 : microsOf(occurredAt),
    exhaustion: exhaustionView(transition.exhaustion),
    clawIdentifier: toClawIdentifier === "" ? undefined : toClawIdentifier,
  };
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
    exhaustion: exhaustionView(exhaustion),
    revision,
    refusal: error === undefined ? undefined : refusalView(error),
  };
}

function refusalView({ reason, message, retryAfter }: AgentBeatError): BeatRefusal {
  return {
    reason: ErrorReasonSchema.value[reason]?.name.replace("ERROR_REASON_", ""),
    message,
    retryAfterMs: retryAfter === undefined ? undefined : millisOf(retryAfter),
  };
}

function exhaustionView(exhaustion: ExhaustionMessage | undefined): ExhaustionView | undefined {
  if (exhaustion === undefined) return undefined;
  const { recovery } = exhaustion;
  return {
    reason: exhaustReasonName(exhaustion.reason) ?? "unknown",
    recoveryAt: recovery.case === "recoveryAt" ? microsOf(recovery.value) : undefined,
  };
}
