import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { DatabaseClock } from "../../src/storage/clock.ts";

const LOCAL_MS = 1_790_000_000_000;
const LOCAL = LOCAL_MS * 1_000;
const MS = 1_000;
const SECOND = 1_000 * MS;
const HOUR = 3_600 * SECOND;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["performance", "Date"], now: LOCAL_MS });
});

afterEach(() => {
  vi.useRealTimers();
});

/** The database's clock at an offset to ours; a query takes some time there and back. */
class FakeDatabase {
  offset = 0;
  readonly clock = new DatabaseClock();

  get now(): number {
    return Date.now() * 1_000 + this.offset;
  }

  ask(roundTripMs: number): void {
    const sentAt = performance.now();
    vi.advanceTimersByTime(roundTripMs / 2);
    const reading = this.now;
    vi.advanceTimersByTime(roundTripMs / 2);
    this.clock.observe(reading, sentAt);
  }

  /** The milliseconds by which the clock is ahead of the database's. */
  get aheadMs(): number {
    return (this.clock.now() - this.now) / MS;
  }
}

describe("the database's clock", () => {
  it("is the machine's before the first reading", () => {
    expect(new DatabaseClock().now()).toBe(LOCAL);
  });

  it.each([
    0, 10, 3_000,
  ])("is never ahead of the database by its lower bound (a response that takes %i ms)", (roundTripMs) => {
    const database = new FakeDatabase();
    expect(database.clock.isRead).toBe(false);
    database.offset = HOUR;
    database.ask(roundTripMs);
    expect(database.clock.isRead).toBe(true);
    for (const elapsedMs of [0, 500, 60_000]) {
      vi.advanceTimersByTime(elapsedMs);
      const behind = database.now - database.clock.atLeast(performance.now());
      expect(behind).toBeGreaterThan(0);
      expect(behind).toBeLessThanOrEqual((roundTripMs + 21) * MS);
      // A deadline in the future waits for it, too.
      expect(database.clock.atLeast(performance.now() + 1_000)).toBeLessThan(database.now + SECOND);
    }
  });

  it("advances by elapsed time, whatever the machine's clock does", () => {
    const clock = new DatabaseClock();
    vi.advanceTimersByTime(1_234);
    vi.setSystemTime(0);
    expect(clock.now()).toBe(LOCAL + 1_234 * MS);
  });

  it.each([-HOUR, HOUR])("follows the first reading, however far from our own clock (%i µs)", (offset) => {
    const database = new FakeDatabase();
    database.offset = offset;
    database.ask(10);
    expect(database.aheadMs).toBeLessThanOrEqual(0);
    expect(database.aheadMs).toBeGreaterThanOrEqual(-10);
    vi.advanceTimersByTime(5_000);
    expect(database.aheadMs).toBeGreaterThanOrEqual(-10);
  });

  it("is a whole number of microseconds that never goes back between two readings", () => {
    const database = new FakeDatabase();
    database.ask(2);
    let before = database.clock.now();
    for (let round = 0; round < 100; round++) {
      vi.advanceTimersByTime(0.37);
      const now = database.clock.now();
      expect(Number.isSafeInteger(now)).toBe(true);
      expect(now).toBeGreaterThanOrEqual(before);
      before = now;
    }
  });

  it("ignores a slow response", () => {
    const database = new FakeDatabase();
    database.ask(2);
    const { aheadMs } = database;
    vi.advanceTimersByTime(1_000);
    database.ask(900);
    expect(database.aheadMs).toBe(aheadMs);
  });

  it("improves by a faster response", () => {
    const database = new FakeDatabase();
    database.ask(900);
    database.ask(2);
    expect(Math.abs(database.aheadMs)).toBeLessThanOrEqual(2);
  });

  it("accepts a slow response when the last good one is a minute old, because of drift", () => {
    const database = new FakeDatabase();
    database.ask(2);
    database.offset = 5 * MS;
    vi.advanceTimersByTime(60_000);
    database.ask(20);
    expect(database.aheadMs).toBe(-10);
  });

  // A new primary, or a machine that was suspended: the difference exceeds the delay of any response.
  it.each([
    -HOUR,
    30 * SECOND,
  ])("detects a jump of the database's clock at once (%i µs), also by a slow response", (jump) => {
    const database = new FakeDatabase();
    database.ask(2);
    vi.advanceTimersByTime(1_000);
    database.offset = jump;
    database.ask(10);
    expect(Math.abs(database.aheadMs)).toBeLessThanOrEqual(10);
  });
});
