import type {
  AgentStatus as AgentStatusMessage,
  ExhaustReason as ExhaustReasonMessage,
  TransitionCause as TransitionCauseMessage,
} from "../../gen/harborforge/agents/v1/agent_pb.ts";
import type {
  AgentChangeType,
  SessionStart as SessionStartMessage,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import type { AgentStatus, ChangeType, ExhaustReason, SessionStart, TransitionCause } from "./enum-names.ts";

/** A value of a newer contract, which this program does not know. Do not wake an agent in such a status. */
export type Unknown = "unknown";

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
  return status === null ? 0 : STATUS_VALUES[status];
}
