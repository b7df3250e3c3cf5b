import type { Logger } from "../logging/logger.ts";

/** After a run that failed because a dependency is unreachable, the pause is at least as long as the run. */
const LOST_SHARE = 0.5;
/** In milliseconds. A pause would be longer only after the process was suspended during a run. */
const LONGEST_PAUSE_MS = 300_000;

export interface PeriodicTaskOptions {
  /** A verb and its object, for the log message "cannot <name>". */
  readonly name: string;
  /** From the end of a run to the start of the next one, in milliseconds. */
  readonly everyMs: number;
  /** The maximum share of time that runs may take, 0 to 1. Slow runs therefore happen less often. Default 1. */
  readonly share?: number;
  readonly log: Pick<Logger, "warn">;
  /** Whether an error means that a dependency of the run is unreachable. */
  isLost(error: unknown): boolean;
  run(): Promise<void>;
}

/** Repeats a task, one run at a time. A failed run is logged, and the next run tries again. */
export class PeriodicTask {
  readonly #options: PeriodicTaskOptions;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #closed = false;
  #failing = false;

  constructor(options: PeriodicTaskOptions) {
    this.#options = options;
  }

  /** Starts the first run at once, and the second at a random moment of the interval, so that replicas spread out. */
  start(): void {
    this.#running = this.#once(Math.random() * this.#options.everyMs);
  }

  /** Starts no further run, and waits for the current one. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  async #once(nextMs: number): Promise<void> {
    const begun = performance.now();
    let share = this.#options.share ?? 1;
    try {
      await this.#options.run();
      this.#failing = false;
    } catch (error) {
      // Log only the first failure of a series: an outage of an hour is one event.
      const { name, log } = this.#options;
      if (!this.#failing) log.warn({ event: "task.failed", task: name, err: error }, `cannot ${name}`);
      this.#failing = true;
      if (this.#options.isLost(error)) share = Math.max(share, LOST_SHARE);
    }
    if (this.#closed) return;
    const pauseMs = Math.min(LONGEST_PAUSE_MS, (performance.now() - begun) * (1 / share - 1));
    this.#timer = setTimeout(
      () => {
        this.#running = this.#once(this.#options.everyMs);
      },
      Math.max(nextMs, pauseMs),
    );
  }
}
