import type { ReportedExhaustion, TransitionCause } from "../../../common/contract/enum-names.ts";
import {
  causeName,
  exhaustReasonName,
  sessionStartName,
  statusName,
  type Unknown,
  wakeOutcomeName,
  wakeReasonName,
  wakeReplyTypeName,
} from "../../../common/contract/enum-values.ts";
import { MICROS_PER_MS, type Micros } from "../../../common/contract/time.ts";
import type { TransitionCause as CauseMessage, Exhaustion } from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import type {
  AgentBeat,
  AgentFilter as FilterMessage,
  UpdateAgentStatusRequest,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import type { WakeReply } from "../../../gen/harborforge/agents/v1/wake_pb.ts";
import { readBeat } from "../../domain/beat-validation.ts";
import { type AgentFilter, EVERY_AGENT } from "../../domain/filter.ts";
import type { ParsedBeat } from "../../domain/heartbeat.ts";
import type { StatusRequest } from "../../domain/status-machine.ts";
import { durationMs, readExhaustion, readFields } from "../../domain/validation.ts";
import type { WakeReplyFields } from "../../domain/wake-reply-validation.ts";
import { refusedBeat } from "../json/refused-beats.ts";

/**
 * Returns a value that a rule of the contract requires. If it is missing, the rule and the reading code disagree: that is
 * a defect of this program.
 */
export function required<T>(value: T | undefined, field: string): T {
  if (value === undefined) throw new TypeError(`${field} is missing, but no rule rejected the request`);
  return value;
}

/** Undefined also for a number outside of the contract. */
function known<Word extends string>(word: Word | Unknown | undefined): Word | undefined {
  return word === "unknown" ? undefined : word;
}

/** The clock of this process. It is precise enough to detect wrong units; leases use the database's clock. */
function roughlyNow(): Micros {
  return Date.now() * MICROS_PER_MS;
}

/** An unset filter matches every agent. */
export function filterOf(filter: FilterMessage | undefined): AgentFilter {
  if (filter === undefined) return EVERY_AGENT;
  const { agentIds, userIds, clawIdentifiers } = filter;
  return {
    agentIds,
    userIds,
    clawIdentifiers,
    statuses: filter.statuses.map((status) => required(known(statusName(status)), "filter.statuses")),
  };
}

/** The causes that a list of transitions is limited to. */
export function causesOf(causes: readonly CauseMessage[]): TransitionCause[] {
  return causes.map((cause) => required(known(causeName(cause)), "causes"));
}

/** A change of status by a service. */
export function statusRequestOf(request: UpdateAgentStatusRequest): StatusRequest {
  const status = required(known(statusName(request.status)), "status");
  const holdMs = request.hold && durationMs(request.hold);
  if (status !== "exhausted") return { status, holdMs };
  return { status: { exhausted: exhaustionOf(required(request.exhaustion, "exhaustion")) }, holdMs };
}

/** Read like those of beats, whose rules are checked without the library. */
function exhaustionOf({ reason, recovery }: Exhaustion): ReportedExhaustion {
  return readFields((violations) =>
    readExhaustion(violations, "exhaustion", known(exhaustReasonName(reason)), recovery, roughlyNow()),
  );
}

/**
 * Reads the beats of a message, each by itself. An absent status changes nothing. A number outside of the contract is
 * rejected: otherwise a client that is newer than this server would silently report nothing.
 */
export function beatsOf(beats: readonly AgentBeat[]): ParsedBeat[] {
  const now = roughlyNow();
  return beats.map((beat, index) => beatOf(beat, index, now));
}

/** @param index the position of the beat in its message */
export function beatOf(beat: AgentBeat, index: number, now: Micros): ParsedBeat {
  const { agentId, leaving, knownRevision } = beat;
  const refused = refusedBeat(agentId);
  if (refused !== undefined) return refused;
  const status = statusName(beat.status);
  const exhaustion = beat.exhaustion && {
    reason: known(exhaustReasonName(beat.exhaustion.reason)),
    recovery: beat.exhaustion.recovery,
  };
  const start = sessionStartName(beat.sessionStart);
  const replies = beat.wakeReplies.length === 0 ? undefined : beat.wakeReplies.map(wakeReplyFields);
  return readBeat(index, { agentId, status, exhaustion, leaving, knownRevision, start, replies }, now);
}

function wakeReplyFields({ wakeId, offerRevision, type, reason, outcome, note }: WakeReply): WakeReplyFields {
  return {
    wakeId,
    offerRevision,
    type: wakeReplyTypeName(type),
    reason: wakeReasonName(reason),
    outcome: wakeOutcomeName(outcome),
    note,
  };
}
