import { FairQueue } from "./fair-queue.ts";

/** The longest that a place rests, in milliseconds. */
const LONGEST_REST_MS = 20;

/**
 * Lets a few through at a time: one of each connection after the other, and of a connection in the order of their coming. While
 * others wait, a place rests for as long as it was used: what reading brings, others have to write, and to live beside.
 */
export class FairSemaphore {
  #free: number;
  readonly #waiting = new FairQueue<() => void>(1);

  /** `width`: how many at a time. */
  constructor(width: number) {
    this.#free = width;
  }

  /** `connection`: any object that stands for whoever asks. */
  async pass<Result>(connection: object, work: () => Promise<Result>): Promise<Result> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(undefined, connection, resolve));
    const begun = performance.now();
    try {
      return await work();
    } finally {
      const tookMs = performance.now() - begun;
      // Who is gone by its turn took no time.
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
