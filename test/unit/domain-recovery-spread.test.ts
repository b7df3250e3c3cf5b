import { randomUUID } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LONGEST_SPREAD_MS, RECOVERIES_PER_SECOND, recoveryDelayMs } from "../../src/domain/recovery-spread.ts";

const SHARING = 2_000;

function idsLike(make: (index: number) => string): string[] {
  return Array.from({ length: SHARING }, (_, index) => make(index));
}

describe("the spread of a mass recovery", () => {
  it.each([
    ["numbers", idsLike((index) => `${index}`)],
    ["numbers behind a name", idsLike((index) => `agent-${index}`)],
    ["numbers before a name", idsLike((index) => `${index}-scribe`)],
    ["padded numbers", idsLike((index) => `claw-a/agent-${String(index).padStart(6, "0")}`)],
    ["random ids", idsLike(() => randomUUID())],
    ["letters beyond ASCII", idsLike((index) => `агент-${index}-🤖`)],
  ])("is even for %s", (_, ids) => {
    const perSecond = new Array<number>(10).fill(0);
    for (const id of ids) {
      const second = Math.floor(recoveryDelayMs(id, SHARING) / 1_000);
      perSecond[second] = (perSecond[second] ?? 0) + 1;
    }
    expect(perSecond).toHaveLength(10);
    // 200 are expected in each; 60 are more than four standard deviations of a truly random spread.
    for (const count of perSecond) expect(Math.abs(count - RECOVERIES_PER_SECOND)).toBeLessThan(60);
  });

  it("is whole milliseconds, within its bounds, and the same on each call and each replica", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 128 }), fc.nat({ max: 1_000_000 }), (id, sharing) => {
        const delay = recoveryDelayMs(id, sharing);
        expect(Number.isInteger(delay)).toBe(true);
        expect(delay).toBeGreaterThanOrEqual(0);
        expect(delay).toBeLessThanOrEqual(LONGEST_SPREAD_MS);
        expect(delay).toBeLessThanOrEqual((sharing / RECOVERIES_PER_SECOND) * 1_000);
        expect(recoveryDelayMs(id, sharing)).toBe(delay);
      }),
    );
  });

  it("does not change with the program: replicas of two versions agree", () => {
    expect(["scribe-7", "agent-1", "agent-2", ""].map((id) => recoveryDelayMs(id, SHARING))).toEqual([
      646, 5_204, 4_577, 3_660,
    ]);
  });

  it("does not delay a single recovery", () => {
    for (const id of idsLike((index) => `agent-${index}`)) expect(recoveryDelayMs(id, 1)).toBeLessThan(5);
  });
});
