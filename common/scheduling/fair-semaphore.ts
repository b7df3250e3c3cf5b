import { FairQueue } from "./fair-queue.ts";

/** The longest rest of a slot, in milliseconds. */
const LONGEST_REST_MS = 20;

/**
 * Admits a limited number of callers at a time. Connections take turns, and callers of one connection are served in
 * order. While others wait, a slot rests for as long as it was used: other processes need the processor to handle what
 * the work produced.
 */
export class FairSemaphore {
  #free: number;
  readonly #waiting = new FairQueue<() => void>(1);

  /** @param width callers that run at the same time */
  constructor(width: number) {
    this.#free = width;
  }

  /**
   * Runs `work` when a slot is free.
   *
   * @param connection identifies the caller's queue
   */
  async pass<Result>(connection: object, work: () => Promise<Result>): Promise<Result> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(undefined, connection, resolve));
    const begun = performance.now();
    try {
      return await work();
    } finally {
      const tookMs = performance.now() - begun;
      // Callers that left before their turn used no time.
      if (this.#waiting.size === 0 || tookMs < 1) this.#next();
      else setTimeout(() => this.#next(), Math.min(LONGEST_REST_MS, tookMs));
    }
  }

  #next(): void {
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.#free += 1;
      return;
    }
    next.charge(1);
    next.item();
  }
}
