import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { INTERVALS_PER_LEASE, paceOf } from "../../src/domain/lease.ts";
import { isolationTimesFor } from "../../src/liveness/membership.ts";

describe("when a replica counts as isolated", () => {
  it.each([
    [100, 200, 300],
    [200, 200, 600],
    [400, 400, 1_200],
    [5_000, 5_000, 15_000],
    [10_000, 5_000, 30_000],
    [3_600_000, 5_000, 10_800_000],
  ])("with an interval of %i ms: after %i ms, with a grace period of %i ms", (intervalMs, isolatedAfterMs, graceMs) => {
    expect(isolationTimesFor(paceOf(intervalMs))).toEqual({ isolatedAfterMs, graceMs });
  });

  it("comes a whole interval before any lease can end whose agent beat in time", () => {
    fc.assert(
      fc.property(fc.integer({ min: 200, max: 3_600_000 }), (intervalMs) => {
        const pace = paceOf(intervalMs);
        // The last heartbeat came at most an interval before the silence began: this is the rest of the lease
        // then.
        const leftMs = pace.leaseMs - intervalMs;
        expect(isolationTimesFor(pace).isolatedAfterMs).toBeLessThanOrEqual(leftMs - intervalMs);
      }),
    );
  });

  it("gives an agent enough time for its next heartbeat, however late in its interval it is", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 3_600_000 }), (intervalMs) => {
        const { graceMs } = isolationTimesFor(paceOf(intervalMs));
        expect(graceMs).toBeGreaterThanOrEqual(INTERVALS_PER_LEASE * intervalMs);
      }),
    );
  });

  it("is in whole milliseconds, as the database keeps them", () => {
    const { isolatedAfterMs, graceMs } = isolationTimesFor({ intervalMs: 333.3, leaseMs: 999.9 });
    expect([isolatedAfterMs, graceMs]).toEqual([333, 1_000]);
  });
});
