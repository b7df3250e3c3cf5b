import { databaseUnavailable } from "./failures.ts";
import { Queue } from "./queue.ts";

interface Waiting {
  gaveUp: boolean;
  admit(): void;
}

/** Lets so many pass at once; the others wait in the order they came. A caller that gave up while it waited costs nothing. */
export class Turnstile {
  readonly #waiting = new Queue<Waiting>();
  #free: number;

  constructor(most: number) {
    this.#free = most;
  }

  /**
   * Waits for a place, which is given back by disposing of it.
   *
   * @param until by `performance.now()`
   * @throws Refusal `DATABASE_UNAVAILABLE` when there was none by then
   */
  async enter(until: number): Promise<Disposable> {
    if (this.#free > 0) this.#free -= 1;
    else await this.#wait(until);
    return { [Symbol.dispose]: () => this.#leave() };
  }

  #wait(until: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        gaveUp: false,
        admit: () => {
          clearTimeout(timer);
          resolve();
        },
      };
      const timer = setTimeout(
        () => {
          waiting.gaveUp = true;
          reject(databaseUnavailable(undefined));
        },
        Math.max(0, until - performance.now()),
      );
      this.#waiting.push(waiting);
    });
  }

  /** The place goes to the next one that has not given up. */
  #leave(): void {
    for (let next = this.#waiting.take(); next !== undefined; next = this.#waiting.take()) {
      if (next.gaveUp) continue;
      next.admit();
      return;
    }
    this.#free += 1;
  }
}
