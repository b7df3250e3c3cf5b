import { MICROS_PER_MS, type Micros } from "../contract/time.ts";
import type { ExhaustReason, ReportedExhaustion } from "../contract/words.ts";
import { FURTHEST_RECOVERY_MS } from "../contract/words.ts";
import { type FieldViolation, Refusal } from "./errors.ts";

// What a request must be, the annotations in the proto files say, and the pipeline enforces them. Here is what remains to
// be done by hand: the rules of heartbeats, which come too often to be asked of a library, and the reading of values that
// are in order. A test holds the former against the annotations.

/** Longest `agent_id`, `claw_identifier` and `instance_id`, in Unicode code points. */
export const LONGEST_NAME = 128;
/** The greatest number of beats in a message. */
export const MAX_BEATS = 1_000;
export const DEFAULT_PAGE_SIZE = 50;
export const LARGEST_PAGE_SIZE = 1_000;
export const DEFAULT_BOOKMARK_MS = 10_000;
/** A refusal travels in trailers, which many clients limit to 8 KiB: a list of a thousand bad values must fit. */
export const MOST_VIOLATIONS = 16;

/** `google.protobuf.Duration` by its shape. */
export interface DurationFields {
  readonly seconds: bigint;
  readonly nanos: number;
}

/** `google.protobuf.Timestamp` by its shape. */
export interface TimestampFields {
  readonly seconds: bigint;
  readonly nanos: number;
}

/** The `recovery` of an `Exhaustion` by its shape. */
export type RecoveryFields =
  | { readonly case: "recoveryAt"; readonly value: TimestampFields }
  | { readonly case: "retryAfter"; readonly value: DurationFields }
  | { readonly case?: undefined; readonly value?: undefined };

/** Where the functions below write down what is wrong. What they return counts only if nothing was. */
export interface Violations {
  /** `field` is the path as in the proto files (`filter.agent_ids[2]`), `description` a phrase that begins with «must». */
  add(field: string, description: string): void;
}

/**
 * Reads a request and finds all that is wrong with it, not only the first.
 *
 * @throws Refusal `INVALID_FIELD` with a violation for each wrong field, up to `MOST_VIOLATIONS`.
 */
export function readFields<T>(read: (violations: Violations) => T): T {
  const violations: FieldViolation[] = [];
  let found = 0;
  const result = read({
    add(field, description) {
      found++;
      if (violations.length < MOST_VIOLATIONS) violations.push({ field, description });
    },
  });
  if (found === 0) return result;
  const sentences = violations.map(({ field, description }) => `${field}: ${description}`);
  if (found > violations.length) sentences.push(`and ${found - violations.length} more`);
  throw new Refusal("INVALID_FIELD", sentences.join("; "), { violations });
}

/** An `agent_id`, `claw_identifier` or `instance_id`: 1 to 128 code points, no control characters. */
export function readName(violations: Violations, field: string, value: string): string {
  if (value === "") violations.add(field, `must be set: 1 to ${LONGEST_NAME} characters`);
  return readText(violations, field, value, LONGEST_NAME);
}

/** Like `readName`; unset and empty mean that there is none. */
export function readOptionalName(violations: Violations, field: string, value: string | undefined): string | undefined {
  return value === undefined || value === "" ? undefined : readName(violations, field, value);
}

/**
 * Text is kept byte for byte, so that what cannot be kept is refused: PostgreSQL has no NUL, UTF-8 no lone surrogates.
 * Other control characters would garble logs and terminals.
 */
function readText(violations: Violations, field: string, value: string, longest: number): string {
  if (isLongerThan(value, longest)) violations.add(field, `must be at most ${longest} characters`);
  else if (/\p{Cc}/u.test(value)) violations.add(field, "must not hold control characters");
  else if (!value.isWellFormed()) violations.add(field, "must be valid Unicode, without lone surrogates");
  return value;
}

function isLongerThan(text: string, codePoints: number): boolean {
  if (text.length <= codePoints) return false;
  // A code point is at most two UTF-16 units: what is longer than that need not be counted.
  return text.length > 2 * codePoints || Array.from(text).length > codePoints;
}

/** A revision that somebody knows of: 0 or greater. */
export function readRevision(violations: Violations, field: string, value: bigint): bigint {
  if (value < 0n) violations.add(field, "must be greater than or equal to 0");
  return value;
}

/** 0 means 50, above 1,000 means 1,000. */
export function pageSizeOf(value: number): number {
  return value === 0 ? DEFAULT_PAGE_SIZE : Math.min(LARGEST_PAGE_SIZE, value);
}

/** Whole milliseconds, rounded up: what is to last is never cut short. */
export function durationMs({ seconds, nanos }: DurationFields): number {
  return Number((seconds * NANOS_PER_SECOND + BigInt(nanos) + NANOS_PER_MS - 1n) / NANOS_PER_MS);
}

/**
 * Why an agent is exhausted, and until when. `reason` is undefined where it was left out. `now` only has to be right
 * within days: it tells a deadline from a mistake of units.
 */
export function readExhaustion(
  violations: Violations,
  field: string,
  reason: ExhaustReason | undefined,
  recovery: RecoveryFields,
  now: Micros,
): ReportedExhaustion {
  if (reason === undefined) violations.add(`${field}.reason`, "must be set: RATE_LIMIT or BILLING");
  // Where the reason is missing the news is never used: the violation refuses the request.
  const news = { reason: reason ?? "rate_limit" } as const;
  switch (recovery.case) {
    case "recoveryAt":
      return { ...news, recoveryAt: readRecoveryAt(violations, `${field}.recovery_at`, recovery.value, now) };
    case "retryAfter":
      return { ...news, retryAfterMs: readRetryAfter(violations, `${field}.retry_after`, recovery.value) };
    case undefined:
      return news;
  }
}

/** A delay in milliseconds: 0 to 366 days. */
export function readRetryAfter(violations: Violations, field: string, value: DurationFields): number {
  if (!isDuration(value)) {
    violations.add(field, "must be a valid duration; it must be from 0 to 366 days");
    return 0;
  }
  const exact = value.seconds * NANOS_PER_SECOND + BigInt(value.nanos);
  if (exact < 0n || exact > LONGEST_RETRY_NANOS) {
    violations.add(field, "must be from 0 to 366 days");
    return 0;
  }
  return durationMs(value);
}

const NANOS_PER_SECOND = 1_000_000_000n;
const NANOS_PER_MS = 1_000_000n;
const NANOS_PER_MICRO = 1_000n;
const LONGEST_RETRY_NANOS = BigInt(FURTHEST_RECOVERY_MS) * NANOS_PER_MS;
const LARGEST_NANOS = 999_999_999;
/** 10,000 years: the range that google/protobuf/duration.proto allows. */
const LARGEST_DURATION_SECONDS = 315_576_000_000n;
/** Years 1 to 9999: the range that google/protobuf/timestamp.proto allows. */
const FIRST_TIMESTAMP_SECONDS = -62_135_596_800n;
const LAST_TIMESTAMP_SECONDS = 253_402_300_799n;

/** Whether a duration is one by google/protobuf/duration.proto: in range, and its parts of one sign. */
export function isDuration({ seconds, nanos }: DurationFields): boolean {
  const sized = seconds >= -LARGEST_DURATION_SECONDS && seconds <= LARGEST_DURATION_SECONDS;
  const oneSign = seconds === 0n || nanos === 0 || seconds > 0n === nanos > 0;
  return sized && oneSign && Number.isInteger(nanos) && Math.abs(nanos) <= LARGEST_NANOS;
}

/** Whether a timestamp is one by google/protobuf/timestamp.proto: years 1 to 9999. */
export function isTimestamp({ seconds, nanos }: TimestampFields): boolean {
  const sized = seconds >= FIRST_TIMESTAMP_SECONDS && seconds <= LAST_TIMESTAMP_SECONDS;
  return sized && Number.isInteger(nanos) && nanos >= 0 && nanos <= LARGEST_NANOS;
}

/** A deadline, at most 366 days after `now`. One that is past is allowed: it counts as none. */
export function readRecoveryAt(violations: Violations, field: string, value: TimestampFields, now: Micros): Micros {
  if (!isTimestamp(value)) {
    violations.add(field, "must be a valid timestamp: years 1 to 9999, nanos 0 to 999999999");
    return 0;
  }
  const { seconds, nanos } = value;
  // Rounded up, so that nobody recovers early.
  const micros = (seconds * NANOS_PER_SECOND + BigInt(nanos) + NANOS_PER_MICRO - 1n) / NANOS_PER_MICRO;
  if (micros > now + FURTHEST_RECOVERY_MS * MICROS_PER_MS) {
    violations.add(field, "must not be more than 366 days ahead");
    return 0;
  }
  // All that is before 1970 is past alike, and the years before 1684 do not fit a safe integer.
  return Math.max(0, Number(micros));
}
