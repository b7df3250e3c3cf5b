import type { ExhaustionNews, ExhaustReason } from "./agent.ts";
import { type FieldViolation, Refusal } from "./errors.ts";
import { FURTHEST_RECOVERY_MS } from "./exhaustion.ts";
import { LONGEST_LEASE_MS } from "./lease.ts";
import { LONGEST_HOLD_MS } from "./status-machine.ts";
import { MICROS_PER_MS, type Micros } from "./time.ts";

/** Longest `agent_id`, `claw_identifier`, `username` and `instance_id`, in Unicode code points. */
export const LONGEST_NAME = 128;
export const LONGEST_EMAIL = 254;
export const LONGEST_DISPLAY_NAME = 256;
export const LONGEST_REQUEST_ID = 64;
/** Lists in a request hold no more values than this. */
export const LONGEST_LIST = 1_000;
export const DEFAULT_PAGE_SIZE = 50;
export const LARGEST_PAGE_SIZE = 1_000;
export const DEFAULT_BOOKMARK_MS = 10_000;
export const SHORTEST_BOOKMARK_MS = 1_000;
export const LONGEST_BOOKMARK_MS = 300_000;
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

/** An `agent_id`, `claw_identifier`, `username` or `instance_id`: 1 to 128 code points, no control characters. */
export function readName(violations: Violations, field: string, value: string): string {
  if (value === "") violations.add(field, `must be set: 1 to ${LONGEST_NAME} characters`);
  return readText(violations, field, value, LONGEST_NAME);
}

/** Like `readName`; unset and empty mean that there is none. */
export function readOptionalName(violations: Violations, field: string, value: string | undefined): string | undefined {
  return value === undefined || value === "" ? undefined : readName(violations, field, value);
}

/** Up to 254 code points, one `@` with something on either side, neither spaces nor control characters; empty: none. */
export function readEmail(violations: Violations, field: string, value: string | undefined): string | null {
  if (value === undefined || value === "") return null;
  readText(violations, field, value, LONGEST_EMAIL);
  if (!/^[^@\s]+@[^@\s]+$/u.test(value)) {
    violations.add(field, "must be an address: one @ with something on either side, and no spaces");
  }
  return value;
}

/** Up to 256 code points, no control characters; may be empty. */
export function readDisplayName(violations: Violations, field: string, value: string): string {
  return readText(violations, field, value, LONGEST_DISPLAY_NAME);
}

/** Up to 64 code points, no control characters; empty means that there is none. */
export function readRequestId(violations: Violations, field: string, value: string): string | undefined {
  return value === "" ? undefined : readText(violations, field, value, LONGEST_REQUEST_ID);
}

/**
 * Text is kept byte for byte, so that what cannot be kept is refused: PostgreSQL has no NUL, UTF-8 no lone surrogates.
 * Other control characters would garble logs and terminals.
 */
function readText(violations: Violations, field: string, value: string, longest: number): string {
  if (isLongerThan(value, longest)) violations.add(field, `must be at most ${longest} characters long`);
  else if (/\p{Cc}/u.test(value)) violations.add(field, "must not hold control characters");
  else if (!value.isWellFormed()) violations.add(field, "must be valid Unicode, without lone surrogates");
  return value;
}

function isLongerThan(text: string, codePoints: number): boolean {
  if (text.length <= codePoints) return false;
  // A code point is at most two UTF-16 units: what is longer than that need not be counted.
  return text.length > 2 * codePoints || Array.from(text).length > codePoints;
}

/** The number of a row: greater than 0. */
export function readId(violations: Violations, field: string, value: bigint): bigint {
  if (value <= 0n) violations.add(field, "must be greater than 0");
  return value;
}

/** A revision that somebody knows of: 0 or greater. */
export function readRevision(violations: Violations, field: string, value: bigint): bigint {
  if (value < 0n) violations.add(field, "must not be negative");
  return value;
}

/** 0 means 50, above 1,000 means 1,000. */
export function readPageSize(violations: Violations, field: string, value: number): number {
  if (value < 0) violations.add(field, "must not be negative");
  return value === 0 ? DEFAULT_PAGE_SIZE : Math.min(LARGEST_PAGE_SIZE, value);
}

/** Up to 1,000 values, each read by `readValue` under its own path. A longer list is refused unread. */
export function readList<Value, Result>(
  violations: Violations,
  field: string,
  values: readonly Value[],
  readValue: (violations: Violations, field: string, value: Value) => Result,
): Result[] {
  if (values.length > LONGEST_LIST) {
    violations.add(field, `must hold at most ${LONGEST_LIST} values`);
    return [];
  }
  return values.map((value, index) => readValue(violations, `${field}[${index}]`, value));
}

/** How long a service's word stands, in milliseconds: 0 to 1 hour. Unset stays undefined: the default of the word. */
export function readHold(violations: Violations, field: string, value: DurationFields | undefined): number | undefined {
  return value && readDuration(violations, field, value, 0, LONGEST_HOLD_MS, "must be from 0 to 1 hour");
}

/** The lease asked for, in milliseconds. What is longer than the longest counts as that one; unset stays undefined. */
export function readLeaseTtl(
  violations: Violations,
  field: string,
  value: DurationFields | undefined,
): number | undefined {
  const ms = value && readDuration(violations, field, value, 0, Number.POSITIVE_INFINITY, "must not be negative");
  return ms === undefined ? undefined : Math.min(LONGEST_LEASE_MS, ms);
}

/** The longest time without a message on a watch, in milliseconds: 1 second to 5 minutes; unset means 10 seconds. */
export function readBookmarkInterval(violations: Violations, field: string, value: DurationFields | undefined): number {
  if (value === undefined) return DEFAULT_BOOKMARK_MS;
  const allowed = "must be from 1 second to 5 minutes";
  return readDuration(violations, field, value, SHORTEST_BOOKMARK_MS, LONGEST_BOOKMARK_MS, allowed);
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
): ExhaustionNews {
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
  return readDuration(violations, field, value, 0, FURTHEST_RECOVERY_MS, "must be from 0 to 366 days");
}

const NANOS_PER_SECOND = 1_000_000_000n;
const NANOS_PER_MS = 1_000_000n;
const NANOS_PER_MICRO = 1_000n;
const LARGEST_NANOS = 999_999_999;
/** 10,000 years: the range that google/protobuf/duration.proto allows. */
const LARGEST_DURATION_SECONDS = 315_576_000_000n;
/** Years 1 to 9999: the range that google/protobuf/timestamp.proto allows. */
const FIRST_TIMESTAMP_SECONDS = -62_135_596_800n;
const LAST_TIMESTAMP_SECONDS = 253_402_300_799n;

/**
 * Whole milliseconds, rounded up: what is to last is never cut short. The limits are milliseconds, inclusive, and are
 * held against the exact value.
 */
function readDuration(
  violations: Violations,
  field: string,
  value: DurationFields,
  shortestMs: number,
  longestMs: number,
  allowed: string,
): number {
  const { seconds, nanos } = value;
  const sized = seconds >= -LARGEST_DURATION_SECONDS && seconds <= LARGEST_DURATION_SECONDS;
  const oneSign = seconds === 0n || nanos === 0 || seconds > 0n === nanos > 0;
  if (!sized || !oneSign || !Number.isInteger(nanos) || Math.abs(nanos) > LARGEST_NANOS) {
    violations.add(field, `must be a valid duration; it ${allowed}`);
    return shortestMs;
  }
  const exact = seconds * NANOS_PER_SECOND + BigInt(nanos);
  // Whole limits times a power of ten, and infinity: a bigint compares with such a number exactly.
  if (exact < shortestMs * 1e6 || exact > longestMs * 1e6) {
    violations.add(field, allowed);
    return shortestMs;
  }
  return Number((exact + NANOS_PER_MS - 1n) / NANOS_PER_MS);
}

/** A deadline, at most 366 days after `now`. One that is past is allowed: it counts as none. */
export function readRecoveryAt(violations: Violations, field: string, value: TimestampFields, now: Micros): Micros {
  const { seconds, nanos } = value;
  const sized = seconds >= FIRST_TIMESTAMP_SECONDS && seconds <= LAST_TIMESTAMP_SECONDS;
  if (!sized || !Number.isInteger(nanos) || nanos < 0 || nanos > LARGEST_NANOS) {
    violations.add(field, "must be a valid timestamp: years 1 to 9999, nanos 0 to 999999999");
    return 0;
  }
  // Rounded up, so that nobody recovers early.
  const micros = (seconds * NANOS_PER_SECOND + BigInt(nanos) + NANOS_PER_MICRO - 1n) / NANOS_PER_MICRO;
  if (micros > now + FURTHEST_RECOVERY_MS * MICROS_PER_MS) {
    violations.add(field, "must not be more than 366 days ahead");
    return 0;
  }
  // All that is before 1970 is past alike, and the years before 1684 do not fit a safe integer.
  return Math.max(0, Number(micros));
}
