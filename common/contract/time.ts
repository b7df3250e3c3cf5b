/**
 * An instant in microseconds since 1970-01-01T00:00:00Z, the resolution of PostgreSQL's `timestamptz`. A JavaScript
 * `Date` would round it. It is a safe integer until the year 2255.
 */
export type Micros = number;

export const MICROS_PER_MS = 1_000;

/** @param ms may be negative; rounded to the microsecond */
export function plusMs(instant: Micros, ms: number): Micros {
  return instant + Math.round(ms * MICROS_PER_MS);
}

/** RFC 3339 in UTC with microseconds, the format of PostgreSQL and of error metadata. */
export function toRfc3339(instant: Micros): string {
  const ms = Math.floor(instant / MICROS_PER_MS);
  const micros = instant - ms * MICROS_PER_MS;
  return `${new Date(ms).toISOString().slice(0, -1)}${String(micros).padStart(3, "0")}Z`;
}
