import type { AgentStatus, ExhaustionNews, ExhaustReason, WorkingStatus } from "./agent.ts";
import { Refusal } from "./errors.ts";
import type { AgentFilter } from "./filter.ts";
import type { ParsedBeat } from "./heartbeat.ts";
import type { ServiceWord } from "./status-machine.ts";
import type { Micros } from "./time.ts";
import {
  type DurationFields,
  type RecoveryFields,
  readExhaustion,
  readFields,
  readHold,
  readId,
  readList,
  readName,
  readRevision,
  type Violations,
} from "./validation.ts";

/** `Exhaustion` by its shape; the reason is undefined where it was left out. */
export interface ExhaustionFields {
  readonly reason: ExhaustReason | undefined;
  readonly recovery: RecoveryFields;
}

/** `AgentFilter` by its shape; a status is undefined where it was UNSPECIFIED. */
export interface FilterFields {
  readonly agentIds: readonly string[];
  readonly userIds: readonly bigint[];
  readonly clawIdentifiers: readonly string[];
  readonly statuses: readonly (AgentStatus | undefined)[];
}

/** `AgentBeat` by its shape; the status is undefined where it was left out. */
export interface BeatFields {
  readonly agentId: string;
  readonly status: AgentStatus | undefined;
  readonly exhaustion: ExhaustionFields | undefined;
  readonly leaving: boolean;
  readonly knownRevision: bigint | undefined;
}

/** What `UpdateAgentStatusRequest` says of the new status, by its shape. */
export interface ServiceWordFields {
  readonly status: AgentStatus | undefined;
  readonly exhaustion: ExhaustionFields | undefined;
  readonly hold: DurationFields | undefined;
}

/** Lists of up to 1,000 values each. `field` is the filter's own path. */
export function readFilter(violations: Violations, field: string, filter: FilterFields): AgentFilter {
  const statuses = readList(violations, `${field}.statuses`, filter.statuses, (_, path, status) => {
    if (status === undefined) violations.add(path, "must not be UNSPECIFIED");
    return status;
  });
  return {
    agentIds: readList(violations, `${field}.agent_ids`, filter.agentIds, readName),
    userIds: readList(violations, `${field}.user_ids`, filter.userIds, readId),
    clawIdentifiers: readList(violations, `${field}.claw_identifiers`, filter.clawIdentifiers, readName),
    statuses: statuses.filter((status) => status !== undefined),
  };
}

/** What a service asks for. The status is required, and an exhaustion with EXHAUSTED, and only with it. */
export function readServiceWord(violations: Violations, fields: ServiceWordFields, now: Micros): ServiceWord {
  const { status, exhaustion, hold } = fields;
  const holdMs = readHold(violations, "hold", hold);
  if (status === undefined) violations.add("status", "must be set");
  const exhausted = readExhaustionOf(violations, "exhaustion", status, exhaustion, now);
  if (exhausted !== undefined) return { status: { exhausted }, holdMs };
  // Where the status is missing, or its exhaustion, the word is never used: the violation refuses the request.
  return { status: status === undefined || status === "exhausted" ? "idle" : status, holdMs };
}

/**
 * Reads one beat of a message. A bad one is a refusal of its own and harms no other. `field` is its path in the
 * message (`beats[3]`).
 */
export function readBeat(field: string, fields: BeatFields, now: Micros): ParsedBeat {
  const { agentId } = fields;
  try {
    return readFields((violations) => {
      readName(violations, `${field}.agent_id`, agentId);
      const report = readReport(violations, field, fields, now);
      const { knownRevision } = fields;
      if (knownRevision !== undefined) readRevision(violations, `${field}.known_revision`, knownRevision);
      return { agentId, leaving: fields.leaving, beat: { report, knownRevision } };
    });
  } catch (error) {
    if (error instanceof Refusal) return { agentId, refusal: error };
    throw error;
  }
}

function readReport(
  violations: Violations,
  field: string,
  fields: BeatFields,
  now: Micros,
): WorkingStatus | { readonly exhausted: ExhaustionNews } | undefined {
  const { status, exhaustion, leaving } = fields;
  if (leaving) {
    if (status !== undefined) violations.add(`${field}.status`, "must not be set with leaving");
    if (exhaustion !== undefined) violations.add(`${field}.exhaustion`, "must not be set with leaving");
    return undefined;
  }
  if (status === "offline") {
    violations.add(`${field}.status`, "must not be OFFLINE: an agent that goes says so by leaving");
    return undefined;
  }
  const exhausted = readExhaustionOf(violations, `${field}.exhaustion`, status, exhaustion, now);
  if (exhausted !== undefined) return { exhausted };
  return status === "exhausted" ? undefined : status;
}

/** An exhaustion comes with EXHAUSTED, and only with it. Undefined for every other status. */
function readExhaustionOf(
  violations: Violations,
  field: string,
  status: AgentStatus | undefined,
  exhaustion: ExhaustionFields | undefined,
  now: Micros,
): ExhaustionNews | undefined {
  if (status !== "exhausted") {
    if (exhaustion !== undefined) violations.add(field, "must not be set without the status EXHAUSTED");
    return undefined;
  }
  if (exhaustion === undefined) {
    violations.add(field, "must be set with the status EXHAUSTED");
    return undefined;
  }
  return readExhaustion(violations, field, exhaustion.reason, exhaustion.recovery, now);
}
