import type {
  AgentStatus,
  ExhaustReason,
  ReportedExhaustion,
  SessionStart,
  WorkingStatus,
} from "../../common/contract/enum-names.ts";
import type { Micros } from "../../common/contract/time.ts";
import { Refusal } from "./errors.ts";
import type { ParsedBeat } from "./heartbeat.ts";
import {
  LONGEST_NAME,
  type RecoveryFields,
  readExhaustion,
  readFields,
  readName,
  readRevision,
  type Violations,
} from "./validation.ts";
import { readWakeReplies, type WakeReplyFields } from "./wake-reply-validation.ts";

/** Names in printable ASCII, which are valid without further checks. */
const PLAIN_NAME = new RegExp(`^[ -~]{1,${LONGEST_NAME}}$`);

/** The fields of an `Exhaustion`. A missing reason is undefined. */
export interface ExhaustionFields {
  readonly reason: ExhaustReason | undefined;
  readonly recovery: RecoveryFields;
}

/** The fields of an `AgentBeat`. A missing status is undefined. */
export interface BeatFields {
  readonly agentId: string;
  /** "unknown": a number outside the contract, perhaps of a newer client. */
  readonly status: AgentStatus | "unknown" | undefined;
  readonly exhaustion: ExhaustionFields | undefined;
  readonly leaving: boolean;
  readonly knownRevision: bigint | undefined;
  /** Undefined if it is missing. */
  readonly start: SessionStart | "unknown" | undefined;
  /** Undefined for nearly all beats. */
  readonly replies?: readonly WakeReplyFields[] | undefined;
}

/**
 * Validates the beat at `index` of a message. An invalid beat is a refusal of its own and does not affect other beats.
 *
 * @param now the database's clock
 */
export function readBeat(index: number, fields: BeatFields, now: Micros): ParsedBeat {
  return readUsualBeat(fields) ?? readAnyBeat(`beats[${index}]`, fields, now);
}

/** The fast path for nearly all beats. Undefined: the beat needs the full validation. */
function readUsualBeat(fields: BeatFields): ParsedBeat | undefined {
  const { agentId, status, exhaustion, leaving, knownRevision, start } = fields;
  if (leaving || exhaustion !== undefined || fields.replies !== undefined || !PLAIN_NAME.test(agentId))
    return undefined;
  if (knownRevision !== undefined && knownRevision < 0n) return undefined;
  if (status === "unknown" || status === "exhausted" || status === "offline" || start === "unknown") return undefined;
  return { agentId, leaving: false, beat: { report: status, knownRevision }, start };
}

function readAnyBeat(field: string, fields: BeatFields, now: Micros): ParsedBeat {
  const { agentId } = fields;
  try {
    return readFields((violations) => {
      readName(violations, `${field}.agent_id`, agentId);
      const report = readReport(violations, field, fields, now);
      const { knownRevision } = fields;
      if (knownRevision !== undefined) readRevision(violations, `${field}.known_revision`, knownRevision);
      const replies = readWakeReplies(violations, `${field}.wake_replies`, fields.replies ?? []);
      const start = readStart(violations, `${field}.session_start`, fields.start);
      const { leaving } = fields;
      if (replies.length === 0) return { agentId, leaving, beat: { report, knownRevision }, start };
      const beat = { report, knownRevision, replies, ...(leaving ? { leaving } : {}) };
      return { agentId, leaving, beat, start };
    });
  } catch (error) {
    if (error instanceof Refusal) return { agentId, refusal: error };
    throw error;
  }
}

function readStart(violations: Violations, field: string, start: BeatFields["start"]): SessionStart | undefined {
  if (start !== "unknown") return start;
  violations.add(field, "must be a session start of the contract");
  return undefined;
}

function readReport(
  violations: Violations,
  field: string,
  { status, exhaustion, leaving }: BeatFields,
  now: Micros,
): WorkingStatus | { readonly exhausted: ReportedExhaustion } | undefined {
  const fault = statusFault(status, leaving);
  if (fault !== undefined) violations.add(`${field}.status`, fault);
  const exhaustionFault = exhaustionFaultOf(status, exhaustion !== undefined, leaving);
  if (exhaustionFault !== undefined) violations.add(`${field}.exhaustion`, exhaustionFault);
  const exhausted =
    exhaustion && readExhaustion(violations, `${field}.exhaustion`, exhaustion.reason, exhaustion.recovery, now);
  switch (status) {
    case undefined:
    case "unknown":
    case "offline":
      return undefined;
    case "exhausted":
      return exhausted && { exhausted };
    default:
      return status;
  }
}

function statusFault(status: BeatFields["status"], leaving: boolean): string | undefined {
  if (status === undefined) return undefined;
  if (leaving) return "must not be set with leaving";
  if (status === "unknown") return "must be a status of the contract";
  return status === "offline" ? "must not be OFFLINE: set leaving instead" : undefined;
}

/** An exhaustion must come with the status EXHAUSTED, and only with it. */
function exhaustionFaultOf(status: BeatFields["status"], given: boolean, leaving: boolean): string | undefined {
  if (leaving) return given ? "must not be set with leaving" : undefined;
  if (given === (status === "exhausted")) return undefined;
  return given ? "must not be set without the status EXHAUSTED" : "must be set with the status EXHAUSTED";
}
