import { create } from "@bufbuild/protobuf";
import { type Duration, DurationSchema, type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import {
  AgentStatus as AgentStatusMessage,
  ExhaustReason as ExhaustReasonMessage,
  TransitionCause as TransitionCauseMessage,
} from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { SessionStart as SessionStartMessage } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import type { AgentStatus, ExhaustReason, TransitionCause } from "../domain/agent.ts";
import type { SessionStart } from "../domain/session-start.ts";
import { MICROS_PER_MS, type Micros } from "../domain/time.ts";

/** What a newer server says that this client has no word for. An agent in such a status is not to be woken. */
export type Unknown = "unknown";

/** Where one is missing, the compiler says so. */
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

const CAUSE_VALUES: Readonly<Record<TransitionCause, TransitionCauseMessage>> = {
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

export const SESSION_START_VALUES: Readonly<Record<SessionStart, SessionStartMessage>> = {
  first: SessionStartMessage.FIRST,
  anew: SessionStartMessage.ANEW,
  resume: SessionStartMessage.RESUME,
};

/** Undefined where the server says nothing: before a creation, after a deletion, of an agent that is not the caller's. */
export const statusWord = wordsOf(STATUS_VALUES);
/** Undefined where there is no exhaustion. */
export const reasonWord = wordsOf(REASON_VALUES);
export const causeWord = wordsOf(CAUSE_VALUES);

function wordsOf<Word extends string>(values: Readonly<Record<Word, number>>) {
  const words = new Map<number, Word>();
  for (const word in values) words.set(values[word], word);
  return (value: number): Word | Unknown | undefined => (value === 0 ? undefined : (words.get(value) ?? "unknown"));
}

/** To the microsecond, which is what the server keeps. */
export function microsOf(timestamp: Timestamp): Micros {
  return Number(timestamp.seconds) * 1_000_000 + Math.floor(timestamp.nanos / 1_000);
}

export function timestampOf(instant: Micros): Timestamp {
  const seconds = Math.floor(instant / 1_000_000);
  return create(TimestampSchema, { seconds: BigInt(seconds), nanos: (instant - seconds * 1_000_000) * 1_000 });
}

export function millisOf(duration: Duration): number {
  return Number(duration.seconds) * 1_000 + duration.nanos / 1_000_000;
}

/** @param ms not negative; rounded to the microsecond */
export function durationOf(ms: number): Duration {
  const micros = Math.round(ms * MICROS_PER_MS);
  const seconds = Math.floor(micros / 1_000_000);
  return create(DurationSchema, { seconds: BigInt(seconds), nanos: (micros - seconds * 1_000_000) * 1_000 });
}
