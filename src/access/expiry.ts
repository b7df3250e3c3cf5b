import type { Micros } from "../../common/contract/time.ts";

/** Short enough to notice that the clock was corrected. A timer takes at most 24.8 days. */
const LONGEST_WAIT_MS = 60_000;

/**
 * Calls `end` once `now` reaches `expiresAt`, never before.
 *
 * @returns a function that cancels it
 */
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
