import type { Micros } from "../contract/time.ts";

/** So much two clocks drift apart between two readings, at the very most. */
const SLACK_MS = 20;

/**
 * The database's clock as this process knows it: the last reading, carried on by a monotonic clock, so that a step of
 * the machine's own clock moves nothing. Good enough to judge by; what must be exact (a lease's end, a recovery) is
 * checked again by the database itself.
 */
export class DatabaseClock {
  #isRead = false;
  #reading: Micros = Date.now() * 1_000;
  #readAt: number = performance.now();
  #roundTripMs = Number.POSITIVE_INFINITY;

  now(): Micros {
    return this.#reading + Math.floor((performance.now() - this.#readAt) * 1_000);
  }

  /** False: the database was not asked since a connection was made, and `now` is a guess. */
  get isRead(): boolean {
    return this.#isRead;
  }

  /**
   * What the database's clock shows at least at a moment of `performance.now()`. The database made a reading at the latest
   * when its answer arrived, and clocks drift apart by no more than the slack. A deadline that is converted by this
   * therefore never lies after the caller's own, however slow the answer was.
   */
  atLeast(moment: number): Micros {
    return this.#reading + Math.floor((moment - this.#readAt - SLACK_MS) * 1_000);
  }

  /** A new connection may be to another server, whose clock shows something else: the next reading counts, whatever it is. */
  forget(): void {
    this.#isRead = false;
    this.#roundTripMs = Number.POSITIVE_INFINITY;
  }

  /** Takes a reading that the database made between `sentAt` and now (both of `performance.now()`). */
  observe(reading: Micros, sentAt: number): void {
    const receivedAt = performance.now();
    const roundTripMs = receivedAt - sentAt;
    // A slow answer tells less than a fast one did; after a minute even a good reading has drifted.
    const slow = roundTripMs > this.#roundTripMs * 2 && receivedAt - this.#readAt < 60_000;
    // However slow: what the database cannot have said, had the clock been right, shows that one of the two jumped.
    const atLeast = reading - SLACK_MS * 1_000;
    const atMost = reading + (roundTripMs + SLACK_MS) * 1_000;
    if (slow && atLeast <= this.now() && this.now() <= atMost) return;
    this.#isRead = true;
    this.#roundTripMs = roundTripMs;
    this.#reading = reading;
    this.#readAt = receivedAt;
  }
}
