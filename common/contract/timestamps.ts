import { create } from "@bufbuild/protobuf";
import { type Duration, DurationSchema, type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { MICROS_PER_MS, type Micros } from "./time.ts";

const MICROS_PER_SECOND = 1_000_000;
const MS_PER_SECOND = 1_000;
const NANOS_PER_MICRO = 1_000;
const NANOS_PER_MS = 1_000_000;
const NANOS_PER_SECOND = 1_000_000_000;

/** Exact. */
export function timestampOf(instant: Micros): Timestamp {
  const seconds = Math.floor(instant / MICROS_PER_SECOND);
  const nanos = (instant - seconds * MICROS_PER_SECOND) * NANOS_PER_MICRO;
  return create(TimestampSchema, { seconds: BigInt(seconds), nanos });
}

/** Exact; null stays unset. */
export function timestampOrUnset(instant: Micros | null): Timestamp | undefined {
  return instant === null ? undefined : timestampOf(instant);
}

/** Rounded down to the microsecond, the service's own resolution. */
export function microsOf(timestamp: Timestamp): Micros {
  return Number(timestamp.seconds) * MICROS_PER_SECOND + Math.floor(timestamp.nanos / NANOS_PER_MICRO);
}

/** Rounded down to the millisecond, the resolution of `Date`. */
export function dateOf(timestamp: Timestamp): Date {
  return new Date(Math.floor(microsOf(timestamp) / MICROS_PER_MS));
}

/** @param ms rounded to the nanosecond */
export function durationOf(ms: number): Duration {
  const seconds = Math.trunc(ms / MS_PER_SECOND);
  const nanos = Math.round((ms - seconds * MS_PER_SECOND) * NANOS_PER_MS);
  // Rounding may give a whole second.
  return Math.abs(nanos) < NANOS_PER_SECOND
    ? create(DurationSchema, { seconds: BigInt(seconds), nanos })
    : create(DurationSchema, { seconds: BigInt(seconds + Math.sign(nanos)) });
}

/** In milliseconds. */
export function millisOf(duration: Duration): number {
  return Number(duration.seconds) * MS_PER_SECOND + duration.nanos / NANOS_PER_MS;
}
