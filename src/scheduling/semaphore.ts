import { Queue } from "./queue.ts";

interface Waiting {
  gaveUp: boolean;
  admit(): void;
}

/** Lets so many pass at once; the others wait in the order they came. A caller that gave up while it waited costs nothing. */
export class Semaphore {
  readonly #waiting = new Queue<Waiting>();
  #free: number;

  constructor(most: number) {
    this.#free = most;
  }

  /**
   * Waits for a place, which is given back by disposing of it. Undefined: there was none in time.
   *
   * @param until by `performance.now()`
   */
  async enter(until: number): Promise<Disposable | undefined> {
    if (this.#free > 0) this.#free -= 1;
    else if (!(await this.#wait(until))) return undefined;
    return { [Symbol.dispose]: () => this.#leave() };
  }

  #wait(until: number): Promise<boolean> {
    return new Promise((resolve) => {
      const waiting: Waiting = {
        gaveUp: false,
        admit: () => {
          clearTimeout(timer);
          resolve(true);
        },
      };
      const timer = setTimeout(
        () => {
          waiting.gaveUp = true;
          resolve(false);
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
