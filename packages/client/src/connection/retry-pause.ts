import { Backoff } from "../../../../common/scheduling/backoff.ts";

const FIRST_MS = 250;
const LONGEST_MS = 10_000;

/**
 * The pauses between attempts to reach the service: from 125 ms up to 10 s.
 *
 * @param random uniform in [0, 1); default `Math.random`
 */
export function createRetryPause(random?: () => number): Backoff {
  return new Backoff(FIRST_MS, LONGEST_MS, random);
}
