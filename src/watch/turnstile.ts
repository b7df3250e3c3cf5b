/** Lets a few through at a time, in the order of their coming. */
export class Turnstile {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  /** `width`: how many at a time. */
  constructor(width: number) {
    this.#free = width;
  }

  async pass<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}
