import { currentMoment, msSince } from "../elapsed.ts";

export interface MainThreadWatchOptions {
  /** How long the main thread may be silent, in milliseconds. */
  readonly timeoutMs: number;
  /** Sends the main thread what it has to answer. */
  readonly ping: () => void;
  readonly onSilent: (unansweredMs: number) => void;
  readonly onBack: () => void;
}

const LOOKS_PER_TIMEOUT = 10;
const SHORTEST_LOOK_MS = 20;
const LONGEST_LOOK_MS = 1_000;

/**
 * Watches from a worker whether the main thread's event loop runs. Only time in which this thread ran as well counts:
 * after a machine slept nobody was silent.
 */
export class MainThreadWatch {
  readonly #options: MainThreadWatchOptions;
  readonly #timer: ReturnType<typeof setInterval>;
  /** For how long the ping that was sent last has not been answered; undefined where it has. */
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

  /** The main thread said something. */
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
