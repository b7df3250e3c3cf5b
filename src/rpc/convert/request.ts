import type { Exhaustion } from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import type {
  AgentBeat,
  AgentFilter as FilterMessage,
  UpdateAgentStatusRequest,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { reasonName, sessionStartName, statusName, type Unknown } from "../../contract/enums.ts";
import { MICROS_PER_MS, type Micros } from "../../contract/time.ts";
import type { ReportedExhaustion } from "../../contract/words.ts";
import { type AgentFilter, EVERY_AGENT } from "../../domain/filter.ts";
import type { ParsedBeat } from "../../domain/heartbeat.ts";
import type { StatusRequest } from "../../domain/status-machine.ts";
import { durationMs, readExhaustion, readFields } from "../../domain/validation.ts";
import { readBeat } from "../../domain/validation-agent.ts";

/**
 * A value that a rule of the contract demands. Where it is missing all the same, the rule and the reading of it
 * disagree, which is a fault of ours.
 */
export function demanded<T>(value: T | undefined, field: string): T {
  if (value === undefined) throw new TypeError(`${field} is missing, and no rule refused that`);
  return value;
}

/** Undefined for a number outside the contract, too. */
function known<Word extends string>(word: Word | Unknown | undefined): Word | undefined {
  return word === "unknown" ? undefined : word;
}

/** This process's clock. Good enough to tell a deadline from a mistake of units; leases go by the database's. */
function roughlyNow(): Micros {
  return Date.now() * MICROS_PER_MS;
}

/** An unset filter asks for every agent. */
export function filterOf(filter: FilterMessage | undefined): AgentFilter {
  if (filter === undefined) return EVERY_AGENT;
  const { agentIds, userIds, clawIdentifiers } = filter;
  return {
    agentIds,
    userIds,
    clawIdentifiers,
    statuses: filter.statuses.map((status) => demanded(known(statusName(status)), "filter.statuses")),
  };
}

/** What a service asks for. */
export function statusRequestOf(request: UpdateAgentStatusRequest): StatusRequest {
  const status = demanded(known(statusName(request.status)), "status");
  const holdMs = request.hold && durationMs(request.hold);
  if (status !== "exhausted") return { status, holdMs };
  return { status: { exhausted: exhaustionOf(demanded(request.exhaustion, "exhaustion")) }, holdMs };
}

/** Read as those of beats are, which is where its rules are written by hand. */
function exhaustionOf({ reason, recovery }: Exhaustion): ReportedExhaustion {
  return readFields((violations) =>
    readExhaustion(violations, "exhaustion", known(reasonName(reason)), recovery, roughlyNow()),
  );
}

/**
 * Reads the beats of a message, each for itself. Left out, a status changes nothing; a number outside the contract is
 * something else and refused, or an agent that is newer than this server would be taken to say nothing.
 */
export function beatsOf(beats: readonly AgentBeat[]): ParsedBeat[] {
  const now = roughlyNow();
  return beats.map((beat, index) => beatOf(beat, index, now));
}

/** @param index the beat's place in its message */
export function beatOf(beat: AgentBeat, index: number, now: Micros): ParsedBeat {
  const { agentId, leaving, knownRevision } = beat;
  const status = statusName(beat.status);
  const exhaustion = beat.exhaustion && {
    reason: known(reasonName(beat.exhaustion.reason)),
    recovery: beat.exhaustion.recovery,
  };
  const start = sessionStartName(beat.sessionStart);
  return readBeat(index, { agentId, status, exhaustion, leaving, knownRevision, start }, now);
}
