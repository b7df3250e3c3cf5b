/**
 * The pauses between attempts. Each is up to twice as long as the one before, up to a maximum. Jitter keeps callers
 * that failed together from retrying together.
 */
export class Backoff {
  readonly #firstMs: number;
  readonly #longestMs: number;
  readonly #random: () => number;
  #nextMs: number;

  /**
   * A pause is 50 to 100 % of a length that doubles from `firstMs` to `longestMs`, both in milliseconds.
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
   * The next pause in milliseconds.
   *
   * @param atLeastMs a delay that the other side asked for; the pause is added to it
   */
  next(atLeastMs = 0): number {
    const ms = this.#nextMs;
    this.#nextMs = Math.min(this.#longestMs, ms * 2);
    return atLeastMs + ms * (0.5 + this.#random() / 2);
  }

  /** Call it after a success: the next pause is the first one again. */
  reset(): void {
    this.#nextMs = this.#firstMs;
  }
}
