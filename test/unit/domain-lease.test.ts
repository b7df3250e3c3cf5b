import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  announcedIntervalMs,
  approachPace,
  grantedLeaseMs,
  INTERVAL_JITTER,
  INTERVALS_PER_LEASE,
  LONGEST_INTERVAL_MS,
  LONGEST_LEASE_MS,
  paceFor,
  paceOf,
} from "../../src/domain/lease.ts";

const LIMITS = { shortestIntervalMs: 10_000, heartbeatsPerSecond: 10_000 };

describe("the pace", () => {
  it.each([
    [0, 10_000],
    [1, 10_000],
    [100_000, 10_000],
    [100_001, 10_001],
    [1_000_000, 100_000],
  ])("for %i agents is an interval of %i ms and a lease of three", (agents, intervalMs) => {
    expect(paceFor(agents, LIMITS)).toEqual({ intervalMs, leaseMs: 3 * intervalMs });
  });

  it("never exceeds the target heartbeats per second, except at an interval of one hour", () => {
    const fleet = fc.integer({ min: 1, max: 5_000_000 });
    const borne = fc.integer({ min: 1, max: 1_000_000 });
    fc.assert(
      fc.property(fleet, borne, (agents, heartbeatsPerSecond) => {
        const { intervalMs } = paceFor(agents, { shortestIntervalMs: 100, heartbeatsPerSecond });
        expect(Number.isInteger(intervalMs)).toBe(true);
        // Compared in whole numbers: agents per interval, not per fraction of one.
        if (intervalMs < LONGEST_INTERVAL_MS) {
          expect(agents * 1_000).toBeLessThanOrEqual(intervalMs * heartbeatsPerSecond);
        }
        expect(intervalMs).toBeLessThanOrEqual(LONGEST_INTERVAL_MS);
      }),
    );
  });

  it.each([
    [3_599, 3_599_000],
    [3_600, 3_600_000],
    [3_601, 3_600_000],
    [Number.MAX_SAFE_INTEGER, 3_600_000],
  ])("for %i agents and one heartbeat a second is %i ms: an hour at most", (agents, intervalMs) => {
    const limits = { shortestIntervalMs: 10_000, heartbeatsPerSecond: 1 };
    expect(paceFor(agents, limits)).toEqual({ intervalMs, leaseMs: INTERVALS_PER_LEASE * intervalMs });
  });

  it("is an hour even with a longer configured minimum interval", () => {
    const limits = { shortestIntervalMs: 2 * LONGEST_INTERVAL_MS, heartbeatsPerSecond: 1 };
    expect(paceFor(1, limits).intervalMs).toBe(LONGEST_INTERVAL_MS);
  });

  it("grows by at most half at a time, so that an agent with an older interval is in time", () => {
    const step = approachPace(paceOf(10_000), paceOf(100_000));
    expect(step).toEqual({ intervalMs: 15_000, leaseMs: 45_000 });
    expect(step.intervalMs).toBeLessThan(paceOf(10_000).leaseMs);
  });

  it("shrinks at once", () => {
    expect(approachPace(paceOf(100_000), paceOf(10_000))).toEqual(paceOf(10_000));
  });

  it.each([100, 101, 10_000, 600_000])("reaches the interval of the fleet's size, from %i ms on", (startMs) => {
    let pace = paceOf(startMs);
    for (let leases = 0; leases < 40; leases++) pace = approachPace(pace, paceOf(6_000_000));
    expect(pace).toEqual(paceOf(6_000_000));
  });
});

describe("the announced interval", () => {
  it("is the pace's at most, and at least nine tenths of it", () => {
    const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
    fc.assert(
      fc.property(fc.integer({ min: 100, max: 10_000_000 }), random, (intervalMs, chance) => {
        const announced = announcedIntervalMs(paceOf(intervalMs), chance);
        expect(announced).toBeLessThanOrEqual(intervalMs);
        expect(announced).toBeGreaterThanOrEqual(Math.floor(intervalMs * (1 - INTERVAL_JITTER)));
        expect(Number.isInteger(announced)).toBe(true);
      }),
    );
  });

  it("is never 0, which would be a loop without a pause", () => {
    expect(announcedIntervalMs(paceOf(1), 0.999)).toBe(1);
  });
});

describe("the lease that a unary heartbeat requests", () => {
  const pace = paceOf(10_000);

  it.each([
    ["nothing", undefined, 30_000],
    ["less than the server's own", 1_000, 30_000],
    ["more", 90_000, 90_000],
    ["an hour", LONGEST_LEASE_MS, LONGEST_LEASE_MS],
    ["more than an hour", LONGEST_LEASE_MS + 1, LONGEST_LEASE_MS],
  ])("%s", (_, askedMs, grantedMs) => {
    expect(grantedLeaseMs(pace, askedMs)).toBe(grantedMs);
  });

  it("is the server's own when that is longer than an hour", () => {
    const slow = paceOf(LONGEST_LEASE_MS);
    expect(grantedLeaseMs(slow, LONGEST_LEASE_MS)).toBe(slow.leaseMs);
  });
});
