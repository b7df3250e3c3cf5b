import fc from "fast-check";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { toRfc3339 } from "../../common/contract/time.ts";
import { columnTypes, parseTimestamptz } from "../../src/storage/column-types.ts";

/** As PostgreSQL writes it in UTC with the ISO style: a blank, no trailing zeros, and an offset. */
function asPostgresWrites(rfc3339: string): string {
  return `${rfc3339
    .replace("T", " ")
    .replace("Z", "")
    .replace(/\.?0*$/, (zeros) => (zeros.startsWith(".") ? "" : zeros.replace(/0+$/, "")))}+00`;
}

describe("a timestamptz", () => {
  it.each([
    ["1970-01-01 00:00:00+00", 0],
    ["2026-09-21 14:13:20+00", 1_790_000_000_000_000],
    ["2026-09-21 14:13:20.5+00", 1_790_000_000_500_000],
    ["2026-09-21 14:13:20.000001+00", 1_790_000_000_000_001],
    ["2024-02-29 23:59:59.999999+00", 1_709_251_199_999_999],
    ["1969-12-31 23:59:59.999999+00", -1],
    ["2255-06-05 23:47:34.740991+00", Number.MAX_SAFE_INTEGER],
  ])("%s is read to the microsecond", (text, instant) => {
    expect(parseTimestamptz(text)).toBe(instant);
  });

  it("is read as it was written, for every instant that a number can represent", () => {
    const farthest = Number.MAX_SAFE_INTEGER;
    const instant = fc.oneof(
      fc.integer({ min: 0, max: farthest }),
      fc.integer({ min: 0, max: Math.floor(farthest / 1_000) }).map((ms) => ms * 1_000),
      fc.integer({ min: 0, max: Math.floor(farthest / 1_000_000) }).map((seconds) => seconds * 1_000_000),
      // From the year 1000 on; no instant of ours is older.
      fc.integer({ min: -30_610_224_000_000_000, max: -1 }),
    );
    fc.assert(
      fc.property(instant, (micros) => {
        expect(parseTimestamptz(asPostgresWrites(toRfc3339(micros)))).toBe(micros);
      }),
      { numRuns: 2_000 },
    );
  });

  it.each([
    "2026-09-21 14:13:20+02",
    "2026-09-21 14:13:20.5-03:30",
    "2026-09-21T14:13:20Z",
    "2026-09-21 14:13:20",
    "2026-09-21 14:13:20.1234567+00",
    "Mon Sep 21 14:13:20 2026 UTC",
    "0044-03-15 12:00:00+00 BC",
    "infinity",
    "-infinity",
    "",
  ])("%j is rejected rather than misread", (text) => {
    expect(() => parseTimestamptz(text)).toThrow(TypeError);
  });
});

describe("the types of columns", () => {
  const { builtins } = pg.types;

  it("parse a bigint without loss", () => {
    expect(columnTypes.getTypeParser(builtins.INT8)("9223372036854775807")).toBe(9_223_372_036_854_775_807n);
    expect(columnTypes.getTypeParser(builtins.INT8, "text")("-1")).toBe(-1n);
  });

  it("parse a timestamptz as microseconds", () => {
    expect(columnTypes.getTypeParser(builtins.TIMESTAMPTZ)("1970-01-01 00:00:01.000002+00")).toBe(1_000_002);
  });

  it.each([
    [builtins.INT4, "42", 42],
    [builtins.BOOL, "t", true],
    [builtins.TEXT, "42", "42"],
  ])("leave others to the library (%i)", (oid, text, value) => {
    expect(columnTypes.getTypeParser(oid)(text)).toBe(value);
  });
});
