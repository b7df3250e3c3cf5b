import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { announcedIntervalMs, firstIntervalMs, paceOf, SHORTEST_FIRST_SHARE } from "../../src/domain/lease.ts";

const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

describe("the first interval of a new stream", () => {
  it("is at most the interval of the pace and never 0, so that no obeying agent is late", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 3_600_000 }), random, (intervalMs, chance) => {
        const first = firstIntervalMs(paceOf(intervalMs), chance);
        expect(Number.isInteger(first)).toBe(true);
        expect(first).toBeGreaterThanOrEqual(Math.max(1, Math.floor(intervalMs * SHORTEST_FIRST_SHARE)));
        expect(first).toBeLessThanOrEqual(intervalMs);
      }),
    );
  });

  it("spreads a fleet that connects at one moment over the next interval, permanently", () => {
    const pace = paceOf(10_000);
    const streams = 10_000;
    const beats: number[] = [];
    for (let stream = 0; stream < streams; stream++) {
      // Evenly drawn, so that the test does not depend on chance.
      let at = firstIntervalMs(pace, stream / streams);
      while (at < 5 * pace.intervalMs) {
        beats.push(at);
        at += announcedIntervalMs(pace, ((stream * 7919) % streams) / streams);
      }
    }
    const busiest = (fromMs: number, untilMs: number) => {
      const perTenth = Array.from({ length: (untilMs - fromMs) / 1_000 }, () => 0);
      for (const at of beats) {
        const tenth = Math.floor((at - fromMs) / 1_000);
        if (at >= fromMs && at < untilMs) perTenth[tenth] = (perTenth[tenth] ?? 0) + 1;
      }
      return Math.max(...perTenth);
    };
    // A tenth of the interval has about a tenth of the beats, never many times as much.
    expect(busiest(0, pace.intervalMs)).toBeLessThan((1.3 * streams) / 10);
    expect(busiest(pace.intervalMs, 5 * pace.intervalMs)).toBeLessThan((1.3 * streams) / 10);
  });
});
