import { ScalarType } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { durationFault, scalarRule, timestampFault } from "../../src/rpc/json/values.ts";

const int32 = scalarRule(ScalarType.INT32);
const int64 = scalarRule(ScalarType.INT64);
const uint64 = scalarRule(ScalarType.UINT64);

describe("whole numbers in JSON", () => {
  test.each([0, -0, 7, -7, 1e3, "0", "7", "-7", 2 ** 31 - 1, -(2 ** 31)])("%j is an int32", (value) => {
    expect(int32?.(value)).toBeUndefined();
    expect(int64?.(value)).toBeUndefined();
  });

  test.each([
    "0x3",
    "0b1",
    " 1 ",
    "1 ",
    "+1",
    "01",
    "-0",
    "1.0",
    "1e3",
    "",
    "--1",
    "1\n",
    "１",
    1.5,
    true,
    [],
    {},
  ])("%j is not an int32", (value) => {
    expect(int32?.(value)).toMatch(/^must be a whole number/);
    expect(int64?.(value)).toMatch(/^must be a whole number/);
  });

  test("have the limits of their types", () => {
    expect(int32?.(2 ** 31)).toMatch(/^must/);
    expect(int32?.("2147483648")).toMatch(/^must/);
    expect(int64?.("9223372036854775807")).toBeUndefined();
    expect(int64?.("9223372036854775808")).toMatch(/^must/);
    expect(int64?.("-9223372036854775808")).toBeUndefined();
    expect(uint64?.("18446744073709551615")).toBeUndefined();
    expect(uint64?.("18446744073709551616")).toMatch(/^must/);
    expect(uint64?.(-1)).toMatch(/^must/);
  });

  test("are strings where numbers lose digits", () => {
    expect(int64?.(2 ** 53 - 1)).toBeUndefined();
    expect(int64?.(2 ** 53)).toMatch(/^must be a string/);
    expect(int64?.(1e300)).toMatch(/^must/);
  });
});

describe("durations in JSON", () => {
  test.each(["0s", "1s", "-1s", "90.5s", "0.000000001s", "-0.5s", "315576000000s"])("%j is valid", (text) => {
    expect(durationFault(text)).toBeUndefined();
  });

  test.each([
    "",
    "1",
    "s",
    "1s1",
    "0s and garbage",
    "1.s",
    ".5s",
    "1.0000000001s",
    " 1s",
    "1s\n",
    "+1s",
    "1m",
    "1e3s",
  ])("%j is invalid", (text) => expect(durationFault(text)).toMatch(/^must be a duration/));

  test.each([1, {}, { seconds: 1 }, "315576000001s", "315576000000.5s"])("%j is invalid, too", (value) => {
    expect(durationFault(value)).toMatch(/^must be a duration/);
  });
});

describe("times in JSON", () => {
  test.each([
    "2027-02-28T00:00:00Z",
    "2028-02-29T23:59:59.999999999Z",
    "2000-02-29T00:00:00+14:00",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
  ])("%j is valid", (text) => expect(timestampFault(text)).toBeUndefined());

  test.each([
    "2027-02-29T00:00:00Z",
    "2027-02-30T00:00:00Z",
    "1900-02-29T00:00:00Z",
    "2027-04-31T00:00:00Z",
    "2027-13-01T00:00:00Z",
    "2027-00-01T00:00:00Z",
    "2027-01-00T00:00:00Z",
    "2027-01-01T24:00:00Z",
    "2027-01-01T00:60:00Z",
    "2027-01-01T00:00:60Z",
    "2027-01-01T00:00:00",
    "2027-01-01T00:00:00.Z",
    "2027-01-01T00:00:00+24:00",
    "2027-01-01",
    "2027-01-01 00:00:00Z",
    "2027-01-01T00:00:00Z\n",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00",
    "",
    1,
    {},
  ])("%j is invalid", (value) => expect(timestampFault(value)).toMatch(/^must be a time/));
});
