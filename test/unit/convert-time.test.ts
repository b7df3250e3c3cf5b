import { timestampDate } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { durationOf, timestampOf, timestampOrUnset } from "../../common/contract/timestamps.ts";

describe("timestampOf", () => {
  it("is exact to the microsecond, also before 1970", () => {
    const years = { min: -62_135_596_800_000_000, max: Number.MAX_SAFE_INTEGER };
    fc.assert(
      fc.property(fc.integer(years), (micros) => {
        const { seconds, nanos } = timestampOf(micros);
        expect(seconds * 1_000_000n + BigInt(nanos) / 1_000n).toBe(BigInt(micros));
        expect(nanos % 1_000).toBe(0);
        expect(nanos >= 0 && nanos < 1_000_000_000).toBe(true);
      }),
    );
  });

  it("equals the Protobuf library's value of that instant", () => {
    expect(timestampDate(timestampOf(1_790_000_000_123_000)).toISOString()).toBe("2026-09-21T14:13:20.123Z");
  });

  it("returns undefined, not the beginning of 1970, for an absent instant", () => {
    expect(timestampOrUnset(null)).toBeUndefined();
    expect(timestampOrUnset(0)).toMatchObject({ seconds: 0n, nanos: 0 });
  });
});

describe("durationOf", () => {
  it("is exact to the millisecond", () => {
    fc.assert(
      fc.property(fc.integer({ min: -1e12, max: 1e12 }), (ms) => {
        const { seconds, nanos } = durationOf(ms);
        expect(seconds * 1_000n + BigInt(nanos) / 1_000_000n).toBe(BigInt(ms));
        // Protobuf requires one sign; bigint zero and number zero have none.
        expect(seconds === 0n || nanos === 0 || seconds > 0n === nanos > 0).toBe(true);
      }),
    );
  });

  it("keeps fractions of a millisecond", () => {
    expect(durationOf(1_500.25)).toMatchObject({ seconds: 1n, nanos: 500_250_000 });
  });
});
