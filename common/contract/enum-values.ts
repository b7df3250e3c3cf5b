import type {
  AgentStatus as AgentStatusMessage,
  ExhaustReason as ExhaustReasonMessage,
  TransitionCause as TransitionCauseMessage,
  WakeState as WakeStateMessage,
} from "../../gen/client/harborforge/agents/v1/agent_pb.ts";
import type {
  AgentChangeType,
  SessionStart as SessionStartMessage,
} from "../../gen/client/harborforge/agents/v1/agent_service_pb.ts";
import type {
  IfUnavailable as IfUnavailableMessage,
  WakeOutcome as WakeOutcomeMessage,
  WakeReason as WakeReasonMessage,
  WakeReplyType as WakeReplyTypeMessage,
} from "../../gen/client/harborforge/agents/v1/wake_pb.ts";
import type {
  AgentStatus,
  ChangeType,
  ExhaustReason,
  IfUnavailable,
  SessionStart,
  TransitionCause,
  Unknown,
  WakeOutcome,
  WakeReason,
  WakeReplyType,
  WakeState,
} from "./enum-names.ts";

export type { Unknown };

// The contract's number of each name. The compiler reports a missing one, a test a wrong one. The generated enums are not imported
// here: browsers would load their descriptors.

export const STATUS_VALUES: Readonly<Record<AgentStatus, AgentStatusMessage>> = {
  idle: 1,
  on_call: 2,
  busy: 3,
  exhausted: 4,
  offline: 5,
};

export const EXHAUST_REASON_VALUES: Readonly<Record<ExhaustReason, ExhaustReasonMessage>> = {
  rate_limit: 1,
  billing: 2,
};

export const CAUSE_VALUES: Readonly<Record<TransitionCause, TransitionCauseMessage>> = {
  created: 1,
  report: 2,
  service: 3,
  lease_expired: 4,
  goodbye: 5,
  recovery: 6,
  moved: 7,
  deleted: 8,
  heartbeat: 9,
  wake: 10,
  stalled: 11,
  progressed: 12,
};

export const CHANGE_TYPE_VALUES: Readonly<Record<ChangeType, AgentChangeType>> = {
  entered: 1,
  updated: 2,
  left: 3,
};

export const SESSION_START_VALUES: Readonly<Record<SessionStart, SessionStartMessage>> = {
  first: 1,
  anew: 2,
  resume: 3,
};

export const WAKE_STATE_VALUES: Readonly<Record<WakeState, WakeStateMessage>> = {
  queued: 1,
  offered: 2,
  accepted: 3,
  finished: 4,
  declined: 5,
  lapsed: 6,
  expired: 7,
  cancelled: 8,
  abandoned: 9,
};

export const IF_UNAVAILABLE_VALUES: Readonly<Record<IfUnavailable, IfUnavailableMessage>> = {
  refuse: 1,
  queue: 2,
};

export const WAKE_REASON_VALUES: Readonly<Record<WakeReason, WakeReasonMessage>> = {
  busy: 1,
  on_call: 2,
  exhausted: 3,
  offline: 4,
  leaving: 5,
  paused: 6,
  no_answer: 7,
  unreported: 8,
  unsuitable: 9,
  service: 10,
  moved: 11,
  deleted: 12,
  no_session: 13,
  suspect: 14,
  limited: 15,
};

export const WAKE_OUTCOME_VALUES: Readonly<Record<WakeOutcome, WakeOutcomeMessage>> = {
  succeeded: 1,
  failed: 2,
  stopped: 3,
};

export const WAKE_REPLY_TYPE_VALUES: Readonly<Record<WakeReplyType, WakeReplyTypeMessage>> = {
  accept: 1,
  decline: 2,
  working: 3,
  finished: 4,
};

// The name of each number: undefined for UNSPECIFIED, "unknown" for a number outside the contract. Bundlers leave out those that are
// marked as pure and not used.

/** UNSPECIFIED: before a creation, after a deletion, or of an agent outside the caller's scope. */
export const statusName = /* @__PURE__ */ namesOf(STATUS_VALUES);
/** UNSPECIFIED: there is no exhaustion. */
export const exhaustReasonName = /* @__PURE__ */ namesOf(EXHAUST_REASON_VALUES);
export const causeName = /* @__PURE__ */ namesOf(CAUSE_VALUES);
export const changeTypeName = /* @__PURE__ */ namesOf(CHANGE_TYPE_VALUES);
export const sessionStartName = /* @__PURE__ */ namesOf(SESSION_START_VALUES);
/** UNSPECIFIED: the agent has no open wake, or no wake changed. */
export const wakeStateName = /* @__PURE__ */ namesOf(WAKE_STATE_VALUES);
export const ifUnavailableName = /* @__PURE__ */ namesOf(IF_UNAVAILABLE_VALUES);
export const wakeReasonName = /* @__PURE__ */ namesOf(WAKE_REASON_VALUES);
export const wakeOutcomeName = /* @__PURE__ */ namesOf(WAKE_OUTCOME_VALUES);
export const wakeReplyTypeName = /* @__PURE__ */ namesOf(WAKE_REPLY_TYPE_VALUES);

function namesOf<Name extends string>(values: Readonly<Record<Name, number>>) {
  const names = new Map<number, Name>();
  for (const name in values) names.set(values[name], name);
  return (value: number): Name | Unknown | undefined => (value === 0 ? undefined : (names.get(value) ?? "unknown"));
}

/** UNSPECIFIED for null (before a creation, after a deletion, or of an agent outside the caller's scope), and for `unknown`. */
export function statusValue(status: AgentStatus | Unknown | null): AgentStatusMessage {
  return status === null || status === "unknown" ? 0 : STATUS_VALUES[status];
}

/** UNSPECIFIED for `unknown`. */
export function wakeStateValue(state: WakeState | Unknown): WakeStateMessage {
  return state === "unknown" ? 0 : WAKE_STATE_VALUES[state];
}

/** UNSPECIFIED for `unknown`. */
export function causeValue(cause: TransitionCause | Unknown): TransitionCauseMessage {
  return cause === "unknown" ? 0 : CAUSE_VALUES[cause];
}

/** UNSPECIFIED for `unknown`. */
export function exhaustReasonValue(reason: ExhaustReason | Unknown): ExhaustReasonMessage {
  return reason === "unknown" ? 0 : EXHAUST_REASON_VALUES[reason];
}
