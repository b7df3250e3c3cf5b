import {
  AgentStatus as AgentStatusMessage,
  ExhaustReason as ExhaustReasonMessage,
  TransitionCause as TransitionCauseMessage,
  WakeState as WakeStateMessage,
} from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  AgentChangeType,
  SessionStart as SessionStartMessage,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import {
  IfUnavailable as IfUnavailableMessage,
  WakeOutcome as WakeOutcomeMessage,
  WakeReason as WakeReasonMessage,
  WakeReplyType as WakeReplyTypeMessage,
} from "../../gen/harborforge/agents/v1/wake_pb.ts";
import type {
  AgentStatus,
  ChangeType,
  ExhaustReason,
  IfUnavailable,
  SessionStart,
  TransitionCause,
  WakeOutcome,
  WakeReason,
  WakeReplyType,
  WakeState,
} from "./enum-names.ts";

/** A value of a newer contract, which this program does not know. Do not wake an agent in such a status. */
export type Unknown = "unknown";

// The contract's number of each name. The compiler reports a missing one.

export const STATUS_VALUES: Readonly<Record<AgentStatus, AgentStatusMessage>> = {
  idle: AgentStatusMessage.IDLE,
  on_call: AgentStatusMessage.ON_CALL,
  busy: AgentStatusMessage.BUSY,
  exhausted: AgentStatusMessage.EXHAUSTED,
  offline: AgentStatusMessage.OFFLINE,
};

export const EXHAUST_REASON_VALUES: Readonly<Record<ExhaustReason, ExhaustReasonMessage>> = {
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
  wake: TransitionCauseMessage.WAKE,
  stalled: TransitionCauseMessage.STALLED,
  progressed: TransitionCauseMessage.PROGRESSED,
};

export const CHANGE_TYPE_VALUES: Readonly<Record<ChangeType, AgentChangeType>> = {
  entered: AgentChangeType.ENTERED,
  updated: AgentChangeType.UPDATED,
  left: AgentChangeType.LEFT,
};

export const SESSION_START_VALUES: Readonly<Record<SessionStart, SessionStartMessage>> = {
  first: SessionStartMessage.FIRST,
  anew: SessionStartMessage.ANEW,
  resume: SessionStartMessage.RESUME,
};

export const WAKE_STATE_VALUES: Readonly<Record<WakeState, WakeStateMessage>> = {
  queued: WakeStateMessage.QUEUED,
  offered: WakeStateMessage.OFFERED,
  accepted: WakeStateMessage.ACCEPTED,
  finished: WakeStateMessage.FINISHED,
  declined: WakeStateMessage.DECLINED,
  lapsed: WakeStateMessage.LAPSED,
  expired: WakeStateMessage.EXPIRED,
  cancelled: WakeStateMessage.CANCELLED,
  abandoned: WakeStateMessage.ABANDONED,
};

export const IF_UNAVAILABLE_VALUES: Readonly<Record<IfUnavailable, IfUnavailableMessage>> = {
  refuse: IfUnavailableMessage.REFUSE,
  queue: IfUnavailableMessage.QUEUE,
};

export const WAKE_REASON_VALUES: Readonly<Record<WakeReason, WakeReasonMessage>> = {
  busy: WakeReasonMessage.BUSY,
  on_call: WakeReasonMessage.ON_CALL,
  exhausted: WakeReasonMessage.EXHAUSTED,
  offline: WakeReasonMessage.OFFLINE,
  leaving: WakeReasonMessage.LEAVING,
  paused: WakeReasonMessage.PAUSED,
  no_answer: WakeReasonMessage.NO_ANSWER,
  unreported: WakeReasonMessage.UNREPORTED,
  unsuitable: WakeReasonMessage.UNSUITABLE,
  service: WakeReasonMessage.SERVICE,
  moved: WakeReasonMessage.MOVED,
  deleted: WakeReasonMessage.DELETED,
  no_session: WakeReasonMessage.NO_SESSION,
  suspect: WakeReasonMessage.SUSPECT,
  limited: WakeReasonMessage.LIMITED,
};

export const WAKE_OUTCOME_VALUES: Readonly<Record<WakeOutcome, WakeOutcomeMessage>> = {
  succeeded: WakeOutcomeMessage.SUCCEEDED,
  failed: WakeOutcomeMessage.FAILED,
  stopped: WakeOutcomeMessage.STOPPED,
};

export const WAKE_REPLY_TYPE_VALUES: Readonly<Record<WakeReplyType, WakeReplyTypeMessage>> = {
  accept: WakeReplyTypeMessage.ACCEPT,
  decline: WakeReplyTypeMessage.DECLINE,
  working: WakeReplyTypeMessage.WORKING,
  finished: WakeReplyTypeMessage.FINISHED,
};

// The name of each number: undefined for UNSPECIFIED, "unknown" for a number outside the contract.

/** UNSPECIFIED: before a creation, after a deletion, or of an agent outside the caller's scope. */
export const statusName = namesOf(STATUS_VALUES);
/** UNSPECIFIED: there is no exhaustion. */
export const exhaustReasonName = namesOf(EXHAUST_REASON_VALUES);
export const causeName = namesOf(CAUSE_VALUES);
export const changeTypeName = namesOf(CHANGE_TYPE_VALUES);
export const sessionStartName = namesOf(SESSION_START_VALUES);
/** UNSPECIFIED: the agent has no open wake, or no wake changed. */
export const wakeStateName = namesOf(WAKE_STATE_VALUES);
export const ifUnavailableName = namesOf(IF_UNAVAILABLE_VALUES);
export const wakeReasonName = namesOf(WAKE_REASON_VALUES);
export const wakeOutcomeName = namesOf(WAKE_OUTCOME_VALUES);
export const wakeReplyTypeName = namesOf(WAKE_REPLY_TYPE_VALUES);

function namesOf<Name extends string>(values: Readonly<Record<Name, number>>) {
  const names = new Map<number, Name>();
  for (const name in values) names.set(values[name], name);
  return (value: number): Name | Unknown | undefined => (value === 0 ? undefined : (names.get(value) ?? "unknown"));
}

/** UNSPECIFIED for null: before a creation, after a deletion, or of an agent outside the caller's scope. */
export function statusValue(status: AgentStatus | null): AgentStatusMessage {
  return status === null ? AgentStatusMessage.UNSPECIFIED : STATUS_VALUES[status];
}
