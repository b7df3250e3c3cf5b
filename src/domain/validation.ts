import type { ExhaustReason, ReportedExhaustion } from "../../common/contract/enum-names.ts";
import { FURTHEST_RECOVERY_MS } from "../../common/contract/enum-names.ts";
import { MICROS_PER_MS, type Micros } from "../../common/contract/time.ts";
import { type FieldViolation, Refusal } from "./errors.ts";

// The proto files declare the rules of requests, and the pipeline enforces them. This file has the rules of heartbeats
// by hand, because a library would be too slow for them, and the conversion of valid values. A test compares these
// rules with the proto files.

/** Longest `agent_id`, `claw_identifier` and `instance_id`, in Unicode code points. */
export const LONGEST_NAME = 128;
/** The largest number of beats in a message. */
export const MAX_BEATS = 1_000;
export const DEFAULT_PAGE_SIZE = 50;
export const LARGEST_PAGE_SIZE = 1_000;
export const DEFAULT_BOOKMARK_MS = 10_000;
/** Errors travel in trailers, which many clients limit to 8 KiB. A list of a thousand violations must fit. */
export const MAX_VIOLATIONS = 16;

/** The fields of a `google.protobuf.Duration`. */
export interface DurationFields {
  readonly seconds: bigint;
  readonly nanos: number;
}

/** The fields of a `google.protobuf.Timestamp`. */
export interface TimestampFields {
  readonly seconds: bigint;
  readonly nanos: number;
}

/** The `recovery` of an `Exhaustion`. */
export type RecoveryFields =
  | { readonly case: "recoveryAt"; readonly value: TimestampFields }
  | { readonly case: "retryAfter"; readonly value: DurationFields }
  | { readonly case?: undefined; readonly value?: undefined };

/** Collects violations. The result of a reading function counts only if there are none. */
export interface Violations {
  /**
   * @param field the path as in the proto files (`filter.agent_ids[2]`)
   * @param description a phrase that begins with "must"
   */
  add(field: string, description: string): void;
}

/**
 * Validates a request and collects all violations.
 *
 * @throws Refusal `INVALID_FIELD` with a violation for each invalid field, up to `MAX_VIOLATIONS`
 */
export function readFields<T>(read: (violations: Violations) => T): T {
  const violations: FieldViolation[] = [];
  let found = 0;
  const result = read({
    add(field, description) {
      found++;
      if (violations.length < MAX_VIOLATIONS) violations.push({ field, description });
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

/** Like `readName`; undefined if the value is unset or empty. */
export function readOptionalName(violations: Violations, field: string, value: string | undefined): string | undefined {
  return value === undefined || value === "" ? undefined : readName(violations, field, value);
}

/**
 * Text is stored unchanged, so text that cannot be stored is invalid: PostgreSQL has no NUL, UTF-8 has no lone
 * surrogates. Other control characters would garble logs and terminals.
 */
function readText(violations: Violations, field: string, value: string, longest: number): string {
  if (isLongerThan(value, longest)) violations.add(field, `must be at most ${longest} characters`);
  else if (/\p{Cc}/u.test(value)) violations.add(field, "must not hold control characters");
  else if (!value.isWellFormed()) violations.add(field, "must be valid Unicode, without lone surrogates");
  return value;
}

function isLongerThan(text: string, codePoints: number): boolean {
  if (text.length <= codePoints) return false;
  // A code point has at most two UTF-16 units, so most texts need no counting.
  return text.length > 2 * codePoints || Array.from(text).length > codePoints;
}

/** A revision: 0 or greater. */
export function readRevision(violations: Violations, field: string, value: bigint): bigint {
  if (value < 0n) violations.add(field, "must be greater than or equal to 0");
  return value;
}

/** The page size: 0 means 50, and more than 1,000 means 1,000. */
export function pageSizeOf(value: number): number {
  return value === 0 ? DEFAULT_PAGE_SIZE : Math.min(LARGEST_PAGE_SIZE, value);
}

/** Whole milliseconds, rounded up, so that a duration is never shortened. */
export function durationMs({ seconds, nanos }: DurationFields): number {
  return Number((seconds * NANOS_PER_SECOND + BigInt(nanos) + NANOS_PER_MS - 1n) / NANOS_PER_MS);
}

/**
 * Validates an exhaustion.
 *
 * @param reason undefined if it is missing
 * @param now may be wrong by days: it only detects mistakes of units
 */
export function readExhaustion(
  violations: Violations,
  field: string,
  reason: ExhaustReason | undefined,
  recovery: RecoveryFields,
  now: Micros,
): ReportedExhaustion {
  if (reason === undefined) violations.add(`${field}.reason`, "must be set: RATE_LIMIT or BILLING");
  // The result is not used if the reason is missing, because the request is rejected.
  const reported = { reason: reason ?? "rate_limit" } as const;
  switch (recovery.case) {
    case "recoveryAt":
      return { ...reported, recoveryAt: readRecoveryAt(violations, `${field}.recovery_at`, recovery.value, now) };
    case "retryAfter":
      return { ...reported, retryAfterMs: readRetryAfter(violations, `${field}.retry_after`, recovery.value) };
    case undefined:
      return reported;
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

/** Whether a duration is valid by google/protobuf/duration.proto: in range, with both parts of one sign. */
export function isDuration({ seconds, nanos }: DurationFields): boolean {
  const sized = seconds >= -LARGEST_DURATION_SECONDS && seconds <= LARGEST_DURATION_SECONDS;
  const oneSign = seconds === 0n || nanos === 0 || seconds > 0n === nanos > 0;
  return sized && oneSign && Number.isInteger(nanos) && Math.abs(nanos) <= LARGEST_NANOS;
}

/** Whether a timestamp is valid by google/protobuf/timestamp.proto: years 1 to 9999. */
export function isTimestamp({ seconds, nanos }: TimestampFields): boolean {
  const sized = seconds >= FIRST_TIMESTAMP_SECONDS && seconds <= LAST_TIMESTAMP_SECONDS;
  return sized && Number.isInteger(nanos) && nanos >= 0 && nanos <= LARGEST_NANOS;
}

/** A deadline, at most 366 days after `now`. A deadline in the past is allowed, and counts as none. */
export function readRecoveryAt(violations: Violations, field: string, value: TimestampFields, now: Micros): Micros {
  if (!isTimestamp(value)) {
    violations.add(field, "must be a valid timestamp: years 1 to 9999, nanos 0 to 999999999");
    return 0;
  }
  const { seconds, nanos } = value;
  // Rounded up, so that an agent never recovers early.
  const micros = (seconds * NANOS_PER_SECOND + BigInt(nanos) + NANOS_PER_MICRO - 1n) / NANOS_PER_MICRO;
  if (micros > now + FURTHEST_RECOVERY_MS * MICROS_PER_MS) {
    violations.add(field, "must not be more than 366 days ahead");
    return 0;
  }
  // Years before 1970 are past in any case, and years before 1684 do not fit into a safe integer.
  return Math.max(0, Number(micros));
}
