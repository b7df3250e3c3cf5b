/**
 * The waits between attempts: each up to twice as long as the one before, up to a longest. Randomness keeps callers that
 * failed together from retrying together.
 */
export class Backoff {
  readonly #firstMs: number;
  readonly #longestMs: number;
  readonly #random: () => number;
  #nextMs: number;

  /**
   * A wait is between half of and the whole of a length that doubles from `firstMs` to `longestMs`, both in milliseconds.
   *
   * @param random uniform in [0, 1); default `Math.random`
   */
  constructor(firstMs: number, longestMs: number, random: () => number = Math.random) {
    this.#firstMs = firstMs;
    this.#longestMs = longestMs;
    this.#random = random;
    this.#nextMs = firstMs;
  }

  /**
   * The next wait in milliseconds.
   *
   * @param atLeastMs a delay that the other side asked for: the wait is added to it
   */
  next(atLeastMs = 0): number {
    const ms = this.#nextMs;
    this.#nextMs = Math.min(this.#longestMs, ms * 2);
    return atLeastMs + ms * (0.5 + this.#random() / 2);
  }

  /** After a success: the next wait is the first one again. */
  reset(): void {
    this.#nextMs = this.#firstMs;
  }
}
