import type { Exhaustion } from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentStatus as StatusMessage } from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import type { AgentBeat, AgentFilter as FilterMessage } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { invalidField } from "../../domain/errors.ts";
import { type AgentFilter, EVERY_AGENT } from "../../domain/filter.ts";
import type { ParsedBeat } from "../../domain/heartbeat.ts";
import { MICROS_PER_MS, type Micros } from "../../domain/time.ts";
import type { Violations } from "../../domain/validation.ts";
import { type ExhaustionFields, readBeat, readFilter } from "../../domain/validation-agent.ts";
import { exhaustReasonOf, statusOf } from "./enum.ts";

/** This process's clock. Good enough to tell a deadline from a mistake of units; leases go by the database's. */
export function roughlyNow(): Micros {
  return Date.now() * MICROS_PER_MS;
}

/** An unset filter asks for every agent. */
export function filterOf(violations: Violations, field: string, filter: FilterMessage | undefined): AgentFilter {
  if (filter === undefined) return EVERY_AGENT;
  const { agentIds, userIds, clawIdentifiers, statuses } = filter;
  return readFilter(violations, field, { agentIds, userIds, clawIdentifiers, statuses: statuses.map(statusOf) });
}

/** The reason is undefined where it was left out, and where it is a number outside the contract: both are refused. */
export function exhaustionFieldsOf(exhaustion: Exhaustion | undefined): ExhaustionFields | undefined {
  return exhaustion && { reason: exhaustReasonOf(exhaustion.reason), recovery: exhaustion.recovery };
}

/**
 * Reads the beats of a message, each for itself. Left out, a status changes nothing; a number outside the contract is
 * something else and refused, or an agent that is newer than this server would be taken to say nothing.
 */
export function beatsOf(beats: readonly AgentBeat[]): ParsedBeat[] {
  const now = roughlyNow();
  return beats.map((beat, index) => {
    const field = `beats[${index}]`;
    const status = statusOf(beat.status);
    if (status === undefined && beat.status !== StatusMessage.UNSPECIFIED) {
      return { agentId: beat.agentId, refusal: invalidField(`${field}.status`, "must be a status of the contract") };
    }
    const { agentId, leaving, knownRevision } = beat;
    const exhaustion = exhaustionFieldsOf(beat.exhaustion);
    return readBeat(field, { agentId, status, exhaustion, leaving, knownRevision }, now);
  });
}
