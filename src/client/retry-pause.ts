import { LONGEST_TIMER_MS } from "./elapsed.ts";

const FIRST_MS = 250;
const LONGEST_MS = 10_000;

/** How long to wait before trying again: longer each time, and never in step with others that failed together. */
export class RetryPause {
  readonly #random: () => number;
  #nextMs = FIRST_MS;

  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /** The next wait in milliseconds: from 125 ms on, at most 10 s, but never shorter than the server asks for. */
  next(atLeastMs = 0): number {
    const ms = this.#nextMs * (0.5 + this.#random() / 2);
    this.#nextMs = Math.min(LONGEST_MS, this.#nextMs * 2);
    return atLeastMs + ms;
  }

  /** It worked: the next failure begins anew. */
  reset(): void {
    this.#nextMs = FIRST_MS;
  }
}

/** Resolves after so many milliseconds (at most 24 days), or when the signal aborts. Never rejects. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, Math.min(ms, LONGEST_TIMER_MS));
    signal.addEventListener("abort", end, { once: true });
  });
}
