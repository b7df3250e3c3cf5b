import {
  AgentStatus as AgentStatusMessage,
  ExhaustReason as ExhaustReasonMessage,
  TransitionCause as TransitionCauseMessage,
} from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  AgentChangeType,
  SessionStart as SessionStartMessage,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import {
  AGENT_STATUSES,
  type AgentStatus,
  EXHAUST_REASONS,
  type ExhaustReason,
  type TransitionCause,
} from "../../domain/agent.ts";
import type { ChangeType } from "../../domain/filter.ts";
import type { SessionStart } from "../../domain/session-start.ts";

/** The contract's values for the domain's words: where one is missing, the compiler says so. */
export const STATUS_VALUES: Readonly<Record<AgentStatus, AgentStatusMessage>> = {
  idle: AgentStatusMessage.IDLE,
  on_call: AgentStatusMessage.ON_CALL,
  busy: AgentStatusMessage.BUSY,
  exhausted: AgentStatusMessage.EXHAUSTED,
  offline: AgentStatusMessage.OFFLINE,
};

export const REASON_VALUES: Readonly<Record<ExhaustReason, ExhaustReasonMessage>> = {
  rate_limit: ExhaustReasonMessage.RATE_LIMIT,
  billing: ExhaustReasonMessage.BILLING,
};

export const CAUSE_VALUES: Readonly<Record<TransitionCause, TransitionCauseMessage>> = {
  created: TransitionCauseMessage.CREATED,
  report: TransitionCauseMessage.REPORT,
  service: TransitionCauseMessage.SERVICE,
  lease_expired: TransitionCauseMessage.LEASE_EXPIRED,
  goodbye: TransitionCauseMessage.GOODBYE,
  recovery: TransitionCauseMessage.RECOVERY,
  moved: TransitionCauseMessage.MOVED,
  deleted: TransitionCauseMessage.DELETED,
  heartbeat: TransitionCauseMessage.HEARTBEAT,
};

export const CHANGE_TYPE_VALUES: Readonly<Record<ChangeType, AgentChangeType>> = {
  entered: AgentChangeType.ENTERED,
  updated: AgentChangeType.UPDATED,
  left: AgentChangeType.LEFT,
};

const STATUS_OF: ReadonlyMap<number, AgentStatus> = new Map(
  AGENT_STATUSES.map((status) => [STATUS_VALUES[status], status]),
);
const REASON_OF: ReadonlyMap<number, ExhaustReason> = new Map(
  EXHAUST_REASONS.map((reason) => [REASON_VALUES[reason], reason]),
);

/** Unspecified where there is none: before a creation, after a deletion, of an agent that the caller does not know. */
export function statusValue(status: AgentStatus | null): AgentStatusMessage {
  return status === null ? AgentStatusMessage.UNSPECIFIED : STATUS_VALUES[status];
}

/** Undefined for UNSPECIFIED and for numbers outside the contract. */
export function statusOf(value: number): AgentStatus | undefined {
  return STATUS_OF.get(value);
}

/** Undefined for UNSPECIFIED and for numbers outside the contract. */
export function exhaustReasonOf(value: number): ExhaustReason | undefined {
  return REASON_OF.get(value);
}

/** Undefined where the client does not say; unknown for numbers outside the contract. */
export function sessionStartOf(value: SessionStartMessage): SessionStart | "unknown" | undefined {
  switch (value) {
    case SessionStartMessage.UNSPECIFIED:
      return undefined;
    case SessionStartMessage.FIRST:
      return "first";
    case SessionStartMessage.ANEW:
      return "anew";
    case SessionStartMessage.RESUME:
      return "resume";
    default:
      return "unknown";
  }
}
