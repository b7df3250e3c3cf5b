import { describe, expect, it } from "vitest";
import { plusMs, toRfc3339 } from "../../common/contract/time.ts";
import { invalidField, Refusal } from "../../src/domain/errors.ts";

describe("an instant", () => {
  it.each([
    [0, "1970-01-01T00:00:00.000000Z"],
    [1, "1970-01-01T00:00:00.000001Z"],
    [-1, "1969-12-31T23:59:59.999999Z"],
    [1_790_000_000_123_456, "2026-09-21T14:13:20.123456Z"],
    [9_007_199_254_740_991, "2255-06-05T23:47:34.740991Z"],
  ])("%i is written %s", (instant, text) => {
    expect(toRfc3339(instant)).toBe(text);
  });

  it("is moved by milliseconds, whose fractions are rounded to microseconds", () => {
    expect(plusMs(1_790_000_000_123_456, 1.5)).toBe(1_790_000_000_124_956);
    expect(plusMs(10, 0.0004)).toBe(10);
    expect(plusMs(10, -0.001)).toBe(9);
  });
});

describe("an error for one field", () => {
  it("names it for people and for machines", () => {
    const refusal = invalidField("beats[3].agent_id", "must be set");
    expect(refusal).toBeInstanceOf(Refusal);
    expect(refusal.reason).toBe("INVALID_FIELD");
    expect(refusal.message).toBe("beats[3].agent_id: must be set");
    expect(refusal.violations).toEqual([{ field: "beats[3].agent_id", description: "must be set" }]);
  });
});
