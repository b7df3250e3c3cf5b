import { MICROS_PER_MS, type Micros } from "../../../common/contract/time.ts";

const STEPS = [
  { unit: "s", ms: 1_000, until: 60_000 },
  { unit: "min", ms: 60_000, until: 3_600_000 },
  { unit: "h", ms: 3_600_000, until: 48 * 3_600_000 },
  { unit: "d", ms: 24 * 3_600_000, until: Number.POSITIVE_INFINITY },
] as const;

/** `in 4 min`, `12 s ago`, `now`: the distance of an instant from `nowMs`. */
export function awayOf(instant: Micros, nowMs: number): string {
  const away = instant / MICROS_PER_MS - nowMs;
  const distance = Math.abs(away);
  if (distance < 1_000) return "now";
  const step = STEPS.find(({ until, ms }) => distance < until - ms / 2) ?? STEPS[3];
  const words = `${Math.round(distance / step.ms)} ${step.unit}`;
  return away > 0 ? `in ${words}` : `${words} ago`;
}

/** `22:30:05` on the day of `nowMs`, otherwise `2026-11-22 22:30:05`; in local time. */
export function localTime(instant: Micros, nowMs: number): string {
  const date = new Date(instant / MICROS_PER_MS);
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
  const day = dayOf(date);
  return day === dayOf(new Date(nowMs)) ? time : `${day} ${time}`;
}

/** `22:30:05 (in 4 min)`; the empty string for undefined. */
export function timeText(instant: Micros | undefined, nowMs: number): string {
  return instant === undefined ? "" : `${localTime(instant, nowMs)} (${awayOf(instant, nowMs)})`;
}

function dayOf(date: Date): string {
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

function two(number: number): string {
  return String(number).padStart(2, "0");
}
