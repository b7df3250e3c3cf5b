import {
  AgentStatus as AgentStatusMessage,
  ExhaustReason as ExhaustReasonMessage,
  TransitionCause as TransitionCauseMessage,
} from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  AgentChangeType,
  SessionStart as SessionStartMessage,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import type { AgentStatus, ChangeType, ExhaustReason, SessionStart, TransitionCause } from "./enum-names.ts";

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

// The name of each number: undefined for UNSPECIFIED, "unknown" for a number outside the contract.

/** UNSPECIFIED: before a creation, after a deletion, or of an agent outside the caller's scope. */
export const statusName = namesOf(STATUS_VALUES);
/** UNSPECIFIED: there is no exhaustion. */
export const exhaustReasonName = namesOf(EXHAUST_REASON_VALUES);
export const causeName = namesOf(CAUSE_VALUES);
export const changeTypeName = namesOf(CHANGE_TYPE_VALUES);
export const sessionStartName = namesOf(SESSION_START_VALUES);

function namesOf<Name extends string>(values: Readonly<Record<Name, number>>) {
  const names = new Map<number, Name>();
  for (const name in values) names.set(values[name], name);
  return (value: number): Name | Unknown | undefined => (value === 0 ? undefined : (names.get(value) ?? "unknown"));
}

/** UNSPECIFIED for null: before a creation, after a deletion, or of an agent outside the caller's scope. */
export function statusValue(status: AgentStatus | null): AgentStatusMessage {
  return status === null ? AgentStatusMessage.UNSPECIFIED : STATUS_VALUES[status];
}
