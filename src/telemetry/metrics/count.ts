/** One series of a counter. Counting is an addition: prom-client's own counter looks its labels up each time. */
export class Count {
  #value = 0;

  get value(): number {
    return this.#value;
  }

  add(amount = 1): void {
    this.#value += amount;
  }
}
