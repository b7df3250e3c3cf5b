/** After a run that waited in vain for something that is away, the next one waits for as long as it took. */
const LOST_SHARE = 0.5;
/** In milliseconds. A run takes longer only if the process was suspended meanwhile. */
const LONGEST_PAUSE_MS = 300_000;

export interface PeriodicTaskOptions {
  /** A verb and its object, as in "cannot <name>". */
  readonly name: string;
  /** Between the end of a run and the beginning of the next one, in milliseconds. */
  readonly everyMs: number;
  /** The greatest share of all time that runs may take; where they are slow, they run less often. Default 1. */
  readonly share?: number;
  readonly log: { warn(facts: object, message: string): void };
  /** Whether an error means that what the run needs is away. */
  isLost(error: unknown): boolean;
  run(): Promise<void>;
}

/** Runs something again and again, one run at a time. A run that fails is logged, and the next one tries again. */
export class PeriodicTask {
  readonly #options: PeriodicTaskOptions;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #closed = false;
  #failing = false;

  constructor(options: PeriodicTaskOptions) {
    this.#options = options;
  }

  /** The first run is at once, the second at a random moment of the interval, so that replicas spread out. */
  start(): void {
    this.#running = this.#once(Math.random() * this.#options.everyMs);
  }

  /** No run begins any more; waits for the one that is under way. */
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
      // Once for each time that it begins to fail: a database that is away for an hour is one event.
      if (!this.#failing) this.#options.log.warn({ err: error }, `cannot ${this.#options.name}`);
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
