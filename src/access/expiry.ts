import type { Micros } from "../contract/time.ts";

/** No longer, so that a clock that was corrected meanwhile is heeded; and timers bear no more than 24 days. */
const LONGEST_WAIT_MS = 60_000;

/** Calls `end` once when `now` has come to `expiresAt`, never before. Returns what stops that. */
export function onceExpired(expiresAt: Micros, now: () => Micros, end: () => void): () => void {
  let timer: NodeJS.Timeout | undefined;
  const look = (): void => {
    const leftMs = (expiresAt - now()) / 1_000;
    if (leftMs <= 0) end();
    else timer = setTimeout(look, Math.min(LONGEST_WAIT_MS, Math.ceil(leftMs))).unref();
  };
  look();
  return () => clearTimeout(timer);
}
