import type { Micros } from "../../common/contract/time.ts";

/** The largest drift of two clocks between two readings, in milliseconds. */
const SLACK_MS = 20;

/**
 * The database's clock as this process knows it: the last reading, advanced by a monotonic clock. So steps of this
 * machine's clock have no effect. The database checks exact instants (a lease expiry, a recovery) again by itself.
 */
export class DatabaseClock {
  #isRead = false;
  #reading: Micros = Date.now() * 1_000;
  #readAt: number = performance.now();
  #roundTripMs = Number.POSITIVE_INFINITY;

  now(): Micros {
    return this.#reading + Math.floor((performance.now() - this.#readAt) * 1_000);
  }

  /** False: there was no reading since a connection was made, and `now` is a guess. */
  get isRead(): boolean {
    return this.#isRead;
  }

  /**
   * The earliest time that the database's clock may show at `moment` (of `performance.now()`). The reading was made at
   * the latest when the response arrived, and the clocks drift by at most the slack. So a deadline converted by this is
   * never later than the caller's own.
   */
  atLeast(moment: number): Micros {
    return this.#reading + Math.floor((moment - this.#readAt - SLACK_MS) * 1_000);
  }

  /**
   * Call it for a new connection, which may go to another server with another clock. The next reading then counts,
   * however slow.
   */
  forget(): void {
    this.#isRead = false;
    this.#roundTripMs = Number.POSITIVE_INFINITY;
  }

  /** Takes a reading that the database made between `sentAt` and now (both of `performance.now()`). */
  observe(reading: Micros, sentAt: number): void {
    const receivedAt = performance.now();
    const roundTripMs = receivedAt - sentAt;
    // A slow response is less exact than a fast one. After a minute even a good reading has drifted.
    const isSlow = roundTripMs > this.#roundTripMs * 2 && receivedAt - this.#readAt < 60_000;
    // A reading outside of these bounds shows that one of the clocks jumped, even if the response was slow.
    const atLeast = reading - SLACK_MS * 1_000;
    const atMost = reading + (roundTripMs + SLACK_MS) * 1_000;
    if (isSlow && atLeast <= this.now() && this.now() <= atMost) return;
    this.#isRead = true;
    this.#roundTripMs = roundTripMs;
    this.#reading = reading;
    this.#readAt = receivedAt;
  }
}
