import { Queue } from "./queue.ts";

interface Waiting {
  timedOut: boolean;
  admit(): void;
}

/**
 * Limits how many callers run at the same time. The others wait in order. A caller that timed out while it waited costs
 * nothing.
 */
export class Semaphore {
  readonly #waiting = new Queue<Waiting>();
  #free: number;

  /** @param limit callers that may run at the same time */
  constructor(limit: number) {
    this.#free = limit;
  }

  /**
   * Waits for a slot. Disposing the result frees the slot. Undefined: no slot was free in time.
   *
   * @param until a moment of `performance.now()`
   */
  async enter(until: number): Promise<Disposable | undefined> {
    if (this.#free > 0) this.#free -= 1;
    else if (!(await this.#wait(until))) return undefined;
    return { [Symbol.dispose]: () => this.#release() };
  }

  #wait(until: number): Promise<boolean> {
    return new Promise((resolve) => {
      const waiting: Waiting = {
        timedOut: false,
        admit: () => {
          clearTimeout(timer);
          resolve(true);
        },
      };
      const timer = setTimeout(
        () => {
          waiting.timedOut = true;
          resolve(false);
        },
        Math.max(0, until - performance.now()),
      );
      this.#waiting.push(waiting);
    });
  }

  /** Passes the slot to the next caller that has not timed out. */
  #release(): void {
    for (let next = this.#waiting.take(); next !== undefined; next = this.#waiting.take()) {
      if (next.timedOut) continue;
      next.admit();
      return;
    }
    this.#free += 1;
  }
}
