import type { Micros } from "../contract/time.ts";
import type { AgentStatus, ExhaustionNews, ExhaustReason, SessionStart, WorkingStatus } from "../contract/words.ts";
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

/** Names in printable ASCII that are in order for certain. */
const PLAIN_NAME = new RegExp(`^[ -~]{1,${LONGEST_NAME}}$`);

/** `Exhaustion` by its shape; the reason is undefined where it was left out. */
export interface ExhaustionFields {
  readonly reason: ExhaustReason | undefined;
  readonly recovery: RecoveryFields;
}

/** `AgentBeat` by its shape; the status is undefined where it was left out. */
export interface BeatFields {
  readonly agentId: string;
  /** Unknown: a number outside the contract, perhaps of an agent that is newer than this server. */
  readonly status: AgentStatus | "unknown" | undefined;
  readonly exhaustion: ExhaustionFields | undefined;
  readonly leaving: boolean;
  readonly knownRevision: bigint | undefined;
  /** Undefined where it was left out. */
  readonly start: SessionStart | "unknown" | undefined;
}

/** Reads one beat of a message, which stands there at `index`. A bad one is a refusal of its own and harms no other. */
export function readBeat(index: number, fields: BeatFields, now: Micros): ParsedBeat {
  return readUsualBeat(fields) ?? readAnyBeat(`beats[${index}]`, fields, now);
}

/** Those that nearly all are: with them nothing is wrong, at little cost. Undefined for any other. */
function readUsualBeat(fields: BeatFields): ParsedBeat | undefined {
  const { agentId, status, exhaustion, leaving, knownRevision, start } = fields;
  if (leaving || exhaustion !== undefined || !PLAIN_NAME.test(agentId)) return undefined;
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
      const start = readStart(violations, `${field}.session_start`, fields.start);
      return { agentId, leaving: fields.leaving, beat: { report, knownRevision }, start };
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
): WorkingStatus | { readonly exhausted: ExhaustionNews } | undefined {
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

/** An exhaustion comes with EXHAUSTED, and only with it. */
function exhaustionFaultOf(status: BeatFields["status"], given: boolean, leaving: boolean): string | undefined {
  if (leaving) return given ? "must not be set with leaving" : undefined;
  if (given === (status === "exhausted")) return undefined;
  return given ? "must not be set without the status EXHAUSTED" : "must be set with the status EXHAUSTED";
}
