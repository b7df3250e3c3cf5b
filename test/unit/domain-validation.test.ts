import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Refusal } from "../../src/domain/errors.ts";
import {
  durationMs,
  pageSizeOf,
  type RecoveryFields,
  readExhaustion,
  readFields,
  readName,
  readOptionalName,
  readRecoveryAt,
  readRetryAfter,
  readRevision,
  type Violations,
} from "../../src/domain/validation.ts";

const NOW = 1_790_000_000_000_000;
const NOW_SECONDS = 1_790_000_000n;
const DAY_SECONDS = 86_400n;

/** The parsed value of a field, or the description of its violation. */
function outcome<T>(read: (violations: Violations) => T): T | string {
  try {
    return readFields(read);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return error.violations.map(({ field, description }) => `${field} ${description}`).join("; ");
  }
}

/** C0, DEL and C1. */
function isControl(point: number): boolean {
  return point < 0x20 || (point >= 0x7f && point < 0xa0);
}

/** Text that must not reach logs, terminals or PostgreSQL. */
const HOSTILE: readonly (readonly [string, string])[] = [
  ["NUL", "a\u0000b"],
  ["a line break", "a\nb"],
  ["a carriage return at the end", "a\r"],
  ["a tab", "\ta"],
  ["an escape sequence", "\u001b[2J"],
  ["DEL", "a\u007f"],
  ["a C1 control", "\u009b31m"],
  ["a lone high surrogate", "a\ud800"],
  ["a lone low surrogate", "\udc00a"],
  ["surrogates the wrong way round", "\udc00\ud800"],
];

/** Text that looks odd, and is allowed. */
const ODD: readonly (readonly [string, string])[] = [
  ["a space", " "],
  ["spaces around", " a "],
  ["SQL", "'; DROP TABLE agents; --"],
  ["a format string", "%s%n{{7*7}}"],
  ["a path", "../../etc/passwd"],
  ["markup", "<script>alert(1)</script>"],
  ["a composed letter", "\u00e9"],
  ["the same letter decomposed", "e\u0301"],
  ["right to left", "\u202eabc"],
  ["no width", "\u200b"],
  ["a family of one grapheme", "👩‍👩‍👧‍👦"],
  ["the last code point", "\u{10ffff}"],
  ["a property of every object", "__proto__"],
];

describe("a name", () => {
  const read = (value: string) => outcome((violations) => readName(violations, "agent_id", value));

  it.each(ODD)("may be %s, and is kept byte for byte", (_, value) => {
    expect(read(value)).toBe(value);
  });

  it.each(HOSTILE)("must not contain %s", (_, value) => {
    expect(read(value)).toMatch(/^agent_id must /);
  });

  it("must not be empty", () => {
    expect(read("")).toBe("agent_id must be set: 1 to 128 characters");
  });

  it.each(["a", "é", "🤖"])("may have 128 code points and no more, whatever their size: %s", (point) => {
    expect(read(point.repeat(128))).toBe(point.repeat(128));
    expect(read(point.repeat(129))).toBe("agent_id must be at most 128 characters");
  });

  it("of a megabyte is rejected without being repeated in the error", () => {
    expect(read("x".repeat(1_000_000))).toBe("agent_id must be at most 128 characters");
  });

  it("is accepted exactly if it is well-formed, short enough and without controls", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 140 }), (value) => {
        const points = Array.from(value);
        const controls = points.some((point) => isControl(point.codePointAt(0) ?? 0));
        expect(read(value) === value).toBe(points.length >= 1 && points.length <= 128 && !controls);
      }),
    );
  });

  it("that is optional counts as unset when it is empty", () => {
    expect(outcome((violations) => readOptionalName(violations, "f", ""))).toBeUndefined();
    expect(outcome((violations) => readOptionalName(violations, "f", undefined))).toBeUndefined();
    expect(outcome((violations) => readOptionalName(violations, "f", "a"))).toBe("a");
    expect(outcome((violations) => readOptionalName(violations, "f", "\n"))).toMatch(/^f must /);
  });
});

describe("numbers", () => {
  it.each([
    [0, 50],
    [1, 1],
    [1_000, 1_000],
    [1_001, 1_000],
    [2_147_483_647, 1_000],
  ])("the page size %i means %s", (value, expected) => {
    expect(pageSizeOf(value)).toBe(expected);
  });

  it("a revision is 0 or greater", () => {
    expect(outcome((violations) => readRevision(violations, "after_revision", 0n))).toBe(0n);
    expect(outcome((violations) => readRevision(violations, "after_revision", -1n))).toBe(
      "after_revision must be greater than or equal to 0",
    );
  });
});

describe("the violations of a request", () => {
  it("are reported together, in the order of parsing", () => {
    const read = () =>
      readFields((violations) => ({
        username: readName(violations, "username", ""),
        claw: readName(violations, "claw_identifier", "\n"),
        revision: readRevision(violations, "known_revision", 7n),
      }));
    expect(read).toThrow(
      expect.objectContaining({
        reason: "INVALID_FIELD",
        message: "username: must be set: 1 to 128 characters; claw_identifier: must not hold control characters",
        violations: [
          expect.objectContaining({ field: "username" }),
          expect.objectContaining({ field: "claw_identifier" }),
        ],
      }),
    );
  });

  it("are empty for a valid one", () => {
    expect(readFields((violations) => readName(violations, "username", "ada"))).toBe("ada");
  });
});

describe("durations", () => {
  it.each<[bigint, number, number]>([
    [0n, 0, 0],
    [0n, 1, 1],
    [0n, 1_000_000, 1],
    [0n, 1_000_001, 2],
    [59n, 999_999_999, 60_000],
    [3_600n, 0, 3_600_000],
    [315_576_000_000n, 0, 315_576_000_000_000],
  ])("of %i s and %i ns are %i whole milliseconds, rounded up", (seconds, nanos, ms) => {
    expect(durationMs({ seconds, nanos })).toBe(ms);
  });

  it.each<[bigint, number]>([
    [1n, -1],
    [-1n, 1],
    [0n, 1_000_000_000],
    [0n, -1_000_000_000],
    [315_576_000_001n, 0],
    [-315_576_000_001n, 0],
    [2n ** 63n - 1n, 0],
    [-(2n ** 63n), 0],
    [0n, 0.5],
    [0n, Number.NaN],
  ])("of %i s and %i ns are invalid", (seconds, nanos) => {
    expect(outcome((violations) => readRetryAfter(violations, "retry_after", { seconds, nanos }))).toBe(
      "retry_after must be a valid duration; it must be from 0 to 366 days",
    );
  });

  it("until a retry are 0 to 366 days", () => {
    const read = (seconds: bigint, nanos: number) =>
      outcome((violations) => readRetryAfter(violations, "retry_after", { seconds, nanos }));
    expect(read(0n, 0)).toBe(0);
    expect(read(366n * DAY_SECONDS, 0)).toBe(366 * 86_400_000);
    expect(read(366n * DAY_SECONDS, 1)).toBe("retry_after must be from 0 to 366 days");
    expect(read(0n, -1)).toBe("retry_after must be from 0 to 366 days");
  });
});

describe("a deadline", () => {
  const read = (seconds: bigint, nanos: number) =>
    outcome((violations) => readRecoveryAt(violations, "exhaustion.recovery_at", { seconds, nanos }, NOW));

  it.each<[string, bigint, number, number]>([
    ["to the microsecond", NOW_SECONDS, 123_456_000, NOW + 123_456],
    ["rounded up, so that nobody recovers early", NOW_SECONDS, 123_456_001, NOW + 123_457],
    ["that is past", 1n, 1_000, 1_000_001],
    ["at the epoch", 0n, 0, 0],
    ["before the epoch, which is past as well", -1n, 999_999_999, 0],
    ["in the year 1", -62_135_596_800n, 0, 0],
    ["366 days ahead", NOW_SECONDS + 366n * DAY_SECONDS, 0, NOW + 366 * 86_400_000_000],
  ])("may be %s", (_, seconds, nanos, micros) => {
    expect(read(seconds, nanos)).toBe(micros);
  });

  it.each<[bigint, number]>([
    [NOW_SECONDS + 366n * DAY_SECONDS, 1],
    [NOW_SECONDS * 1_000n, 0],
    [253_402_300_799n, 999_999_999],
  ])("of %i s and %i ns is too far ahead", (seconds, nanos) => {
    const refused = seconds > 253_402_300_799n ? /valid timestamp/ : /must not be more than 366 days ahead/;
    expect(read(seconds, nanos)).toMatch(refused);
  });

  it.each<[bigint, number]>([
    [-62_135_596_801n, 0],
    [253_402_300_800n, 0],
    [2n ** 63n - 1n, 0],
    [-(2n ** 63n), 0],
    [0n, -1],
    [0n, 1_000_000_000],
    [0n, 0.5],
    [0n, Number.NaN],
  ])("of %i s and %i ns is an invalid timestamp", (seconds, nanos) => {
    expect(read(seconds, nanos)).toMatch(/must be a valid timestamp/);
  });

  it("is always a safe integer", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), fc.integer(), (seconds, nanos) => {
        const result = read(seconds, nanos);
        expect(typeof result === "string" || Number.isSafeInteger(result)).toBe(true);
      }),
    );
  });
});

describe("an exhaustion", () => {
  const read = (reason: "billing" | undefined, recovery: RecoveryFields) =>
    outcome((violations) => readExhaustion(violations, "beats[3].exhaustion", reason, recovery, NOW));

  it("may leave the time to the server", () => {
    expect(read("billing", { case: undefined })).toEqual({ reason: "billing" });
    expect(read("billing", {})).toEqual({ reason: "billing" });
  });

  it("may name a deadline or a delay", () => {
    expect(read("billing", { case: "recoveryAt", value: { seconds: NOW_SECONDS, nanos: 0 } })).toEqual({
      reason: "billing",
      recoveryAt: NOW,
    });
    expect(read("billing", { case: "retryAfter", value: { seconds: 30n, nanos: 0 } })).toEqual({
      reason: "billing",
      retryAfterMs: 30_000,
    });
  });

  it("must name a reason, and a valid time", () => {
    expect(read(undefined, { case: "retryAfter", value: { seconds: -30n, nanos: 0 } })).toBe(
      "beats[3].exhaustion.reason must be set: RATE_LIMIT or BILLING; " +
        "beats[3].exhaustion.retry_after must be from 0 to 366 days",
    );
    expect(read("billing", { case: "recoveryAt", value: { seconds: 0n, nanos: -1 } })).toMatch(
      /^beats\[3\]\.exhaustion\.recovery_at must be a valid timestamp/,
    );
  });
});
