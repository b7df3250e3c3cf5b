import {
  DECLINE_REASONS,
  type DeclineReason,
  type WakeOutcome,
  type WakeReason,
  type WakeReplyType,
} from "../../common/contract/enum-names.ts";
import { readName, readRevision, type Violations } from "./validation.ts";
import { LONGEST_NOTE_BYTES, MAX_WAKE_REPLIES, type WakeReply } from "./wake.ts";

/** The fields of a `WakeReply`. A missing value is undefined; "unknown" is a number outside the contract. */
export interface WakeReplyFields {
  readonly wakeId: string;
  readonly offerRevision: bigint;
  readonly type: WakeReplyType | "unknown" | undefined;
  readonly reason: WakeReason | "unknown" | undefined;
  readonly outcome: WakeOutcome | "unknown" | undefined;
  readonly note: string;
}

/** Validates the replies of a beat by the rules of `WakeReply`. */
export function readWakeReplies(
  violations: Violations,
  field: string,
  replies: readonly WakeReplyFields[],
): readonly WakeReply[] {
  if (replies.length > MAX_WAKE_REPLIES) {
    violations.add(field, `must hold at most ${MAX_WAKE_REPLIES} values`);
    return [];
  }
  return replies.map((reply, index) => readWakeReply(violations, `${field}[${index}]`, reply));
}

function readWakeReply(violations: Violations, field: string, reply: WakeReplyFields): WakeReply {
  const wakeId = readName(violations, `${field}.wake_id`, reply.wakeId);
  const offerRevision = readRevision(violations, `${field}.offer_revision`, reply.offerRevision);
  const type = readType(violations, `${field}.type`, reply.type);
  const reason = readReason(violations, `${field}.reason`, reply);
  const outcome = readOutcome(violations, `${field}.outcome`, reply);
  const note = readNote(violations, `${field}.note`, reply.note);
  return { wakeId, offerRevision, type, reason, outcome, note };
}

function readType(violations: Violations, field: string, type: WakeReplyFields["type"]): WakeReplyType {
  if (type !== undefined && type !== "unknown") return type;
  violations.add(field, "must be set: ACCEPT, DECLINE, WORKING or FINISHED");
  return "decline";
}

function isDeclineReason(reason: WakeReason): reason is DeclineReason {
  return DECLINE_REASONS.some((one) => one === reason);
}

/** Of a decline; the default is `unsuitable`. */
function readReason(violations: Violations, field: string, { type, reason }: WakeReplyFields): DeclineReason {
  if (reason === undefined) return "unsuitable";
  if (reason === "unknown") violations.add(field, "must be a reason of the contract");
  else if (type !== "decline") violations.add(field, "must not be set unless the type is DECLINE");
  else if (isDeclineReason(reason)) return reason;
  else violations.add(field, "must be BUSY, ON_CALL, EXHAUSTED, LEAVING or UNSUITABLE");
  return "unsuitable";
}

/** Of a finish. */
function readOutcome(violations: Violations, field: string, { type, outcome }: WakeReplyFields): WakeOutcome {
  if (outcome === undefined) {
    if (type === "finished") violations.add(field, "must be set with the type FINISHED");
    return "failed";
  }
  if (outcome === "unknown") violations.add(field, "must be an outcome of the contract");
  else if (type === "finished") return outcome;
  else violations.add(field, "must not be set unless the type is FINISHED");
  return "failed";
}

/** PostgreSQL stores no NUL. Other control characters are kept: a note is a text of several lines. */
function readNote(violations: Violations, field: string, note: string): string {
  const isLong = note.length > LONGEST_NOTE_BYTES || Buffer.byteLength(note) > LONGEST_NOTE_BYTES;
  if (isLong) violations.add(field, `must be at most ${LONGEST_NOTE_BYTES} bytes`);
  else if (note.includes("\0")) violations.add(field, "must not hold the character NUL");
  else if (!note.isWellFormed()) violations.add(field, "must be valid Unicode, without lone surrogates");
  return note;
}
