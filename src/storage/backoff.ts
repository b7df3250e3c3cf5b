/** How long to wait before trying again: longer each time, and never in step with others that failed together. */
export class Backoff {
  readonly #firstMs: number;
  readonly #longestMs: number;
  #nextMs: number;

  /** Both in milliseconds; a wait is between half of and the whole of a length that doubles from the first to the longest. */
  constructor(firstMs: number, longestMs: number) {
    this.#firstMs = firstMs;
    this.#longestMs = longestMs;
    this.#nextMs = firstMs;
  }

  /** The next wait, in milliseconds. */
  next(): number {
    const ms = this.#nextMs;
    this.#nextMs = Math.min(this.#longestMs, ms * 2);
    return ms * (0.5 + Math.random() / 2);
  }

  /** It worked: the next failure begins anew. */
  reset(): void {
    this.#nextMs = this.#firstMs;
  }
}
