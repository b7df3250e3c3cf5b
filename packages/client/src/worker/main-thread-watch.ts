import { currentMoment, msSince } from "../elapsed.ts";

export interface MainThreadWatchOptions {
  /** After how many milliseconds without an answer the main thread counts as blocked. */
  readonly timeoutMs: number;
  /** Sends a ping to the main thread. */
  readonly ping: () => void;
  readonly onSilent: (unansweredMs: number) => void;
  readonly onBack: () => void;
}

const LOOKS_PER_TIMEOUT = 10;
const SHORTEST_LOOK_MS = 20;
const LONGEST_LOOK_MS = 1_000;

/**
 * Checks from a worker whether the event loop of the main thread runs. Only the time in which this thread ran counts, so that the
 * sleep of a machine is not taken for a blocked thread.
 */
export class MainThreadWatch {
  readonly #options: MainThreadWatchOptions;
  readonly #timer: ReturnType<typeof setInterval>;
  /** How long the last ping has waited for its answer, in milliseconds; undefined if it was answered. */
  #unansweredMs: number | undefined;
  #isSilent = false;

  constructor(options: MainThreadWatchOptions) {
    this.#options = options;
    const lookMs = Math.min(LONGEST_LOOK_MS, Math.max(SHORTEST_LOOK_MS, options.timeoutMs / LOOKS_PER_TIMEOUT));
    let last = currentMoment();
    this.#timer = setInterval(() => {
      const elapsedMs = Math.min(msSince(last), 2 * lookMs);
      last = currentMoment();
      this.#look(elapsedMs);
    }, lookMs);
  }

  /** The main thread sent a message. */
  noteAnswer(): void {
    this.#unansweredMs = undefined;
    if (!this.#isSilent) return;
    this.#isSilent = false;
    this.#options.onBack();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(elapsedMs: number): void {
    const { ping, timeoutMs, onSilent } = this.#options;
    if (this.#unansweredMs === undefined) {
      this.#unansweredMs = 0;
      ping();
      return;
    }
    this.#unansweredMs += elapsedMs;
    if (this.#isSilent || this.#unansweredMs < timeoutMs) return;
    this.#isSilent = true;
    onSilent(this.#unansweredMs);
  }
}
