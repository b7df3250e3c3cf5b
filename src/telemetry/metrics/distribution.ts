/** One series of a histogram. To observe a value is a few comparisons: beats come by the thousand. */
export class Distribution {
  readonly #bounds: readonly number[];
  /** By bucket, not cumulative. The last one is for larger values. */
  readonly #counts: number[];
  #sum = 0;

  /** @param bounds the upper bounds of the buckets, ascending */
  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = new Array<number>(bounds.length + 1).fill(0);
  }

  /** A clock that was set back may make a duration negative: it counts as 0. */
  observe(value: number): void {
    let bucket = 0;
    for (const bound of this.#bounds) {
      if (value <= bound) break;
      bucket += 1;
    }
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    if (value > 0) this.#sum += value;
  }

  get sum(): number {
    return this.#sum;
  }

  get count(): number {
    return this.#counts.reduce((sum, count) => sum + count, 0);
  }

  /** Each bound with the number of values up to it. */
  *cumulative(): Iterable<readonly [bound: number, count: number]> {
    let total = 0;
    for (const [bucket, bound] of this.#bounds.entries()) {
      total += this.#counts[bucket] ?? 0;
      yield [bound, total];
    }
  }
}
