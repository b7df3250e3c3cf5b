import { failureKind } from "../storage/failures.ts";
import type { Logger } from "./logger.ts";

/** A run whose connection was lost has waited for a database that did nothing: the next one comes after as long again. */
const LOST_SHARE = 0.5;
/** Beyond what any statement that ends can ask for: whoever took longer was frozen meanwhile, and did nothing either. */
const LONGEST_PAUSE_MS = 300_000;

/** Something that a replica does again and again, one run at a time. A run that fails is logged and the next one tries. */
export class Chore {
  readonly #name: string;
  readonly #everyMs: number;
  readonly #share: number;
  readonly #log: Logger;
  readonly #run: () => Promise<void>;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #closed = false;
  #failing = false;

  /** `share`: of all time, so much is spent on it at most, by running less often (default: 1). */
  constructor(options: { name: string; everyMs: number; share?: number; log: Logger; run(): Promise<void> }) {
    this.#name = options.name;
    this.#everyMs = options.everyMs;
    this.#share = options.share ?? 1;
    this.#log = options.log;
    this.#run = () => options.run();
  }

  /** The first run is at once, the second at a random moment of the interval, so that replicas spread out. */
  start(): void {
    this.#running = this.#once(Math.random() * this.#everyMs);
  }

  /** No run begins any more; waits for the one that is under way. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  async #once(nextMs: number): Promise<void> {
    const begun = performance.now();
    let share = this.#share;
    try {
      await this.#run();
      this.#failing = false;
    } catch (error) {
      // Once for each time that it begins to fail: a database that is away for an hour is one event.
      if (!this.#failing) this.#log.warn({ err: error }, `cannot ${this.#name}`);
      this.#failing = true;
      if (failureKind(error) === "lost") share = Math.max(share, LOST_SHARE);
    }
    if (this.#closed) return;
    const pauseMs = Math.min(LONGEST_PAUSE_MS, (performance.now() - begun) * (1 / share - 1));
    this.#timer = setTimeout(
      () => {
        this.#running = this.#once(this.#everyMs);
      },
      Math.max(nextMs, pauseMs),
    );
  }
}
