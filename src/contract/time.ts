/**
 * An instant as microseconds since 1970-01-01T00:00:00Z: the resolution of PostgreSQL's `timestamptz`, which a
 * JavaScript `Date` would round. A safe integer until the year 2255.
 */
export type Micros = number;

export const MICROS_PER_MS = 1_000;

export function plusMs(instant: Micros, ms: number): Micros {
  return instant + Math.round(ms * MICROS_PER_MS);
}

/** RFC 3339 with microseconds, UTC: what PostgreSQL and error metadata take. */
export function toRfc3339(instant: Micros): string {
  const ms = Math.floor(instant / MICROS_PER_MS);
  const micros = instant - ms * MICROS_PER_MS;
  return `${new Date(ms).toISOString().slice(0, -1)}${String(micros).padStart(3, "0")}Z`;
}
