import { describe, expect, test } from "vitest";
import { createCallLimiter } from "../../src/rpc/callers/call-limits.ts";
import { networkOf } from "../../src/rpc/callers/network.ts";
import { TokenBuckets } from "../../src/rpc/callers/token-buckets.ts";

describe("token buckets", () => {
  test("give each key a burst, then a rate", () => {
    let now = 0;
    const buckets = new TokenBuckets({ perSecond: 10, burst: 3, now: () => now });
    expect([1, 2, 3, 4].map(() => buckets.take("a"))).toEqual([0, 0, 0, 100]);
    expect(buckets.take("b")).toBe(0);
    now = 99;
    expect(buckets.take("a")).toBe(1);
    now = 100;
    expect(buckets.take("a")).toBe(0);
    now = 3_600_000;
    expect([1, 2, 3, 4].map(() => buckets.take("a") > 0)).toEqual([false, false, false, true]);
  });

  test("owe what is charged beyond their tokens, up to one burst", () => {
    let now = 0;
    const buckets = new TokenBuckets({ perSecond: 10, burst: 20, now: () => now });
    buckets.charge("a", 15);
    expect(Array.from({ length: 6 }, () => buckets.take("a") === 0)).toEqual([true, true, true, true, true, false]);
    buckets.charge("a", 1_000);
    now = 2_000;
    expect(buckets.take("a")).toBe(100);
    now = 2_100;
    expect(buckets.take("a")).toBe(0);
  });

  test("drop the least recently used key", () => {
    const buckets = new TokenBuckets({ perSecond: 1, burst: 1, maxKeys: 2, now: () => 0 });
    buckets.take("a");
    buckets.take("b");
    buckets.take("a");
    buckets.take("c");
    expect(buckets.size).toBe(2);
    expect(buckets.take("a")).toBeGreaterThan(0);
    for (let index = 0; index < 10_000; index += 1) buckets.take(String(index));
    expect(buckets.size).toBe(2);
  });
});

test.each([
  ["10.1.2.3", "10.1.2.3"],
  ["::ffff:10.1.2.3", "10.1.2.3"],
  ["::1", "0:0:0:0::/64"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  ["2001:0db8::1", "2001:db8:0:0::/64"],
  ["fe80::1%eth0", "fe80:0:0:0::/64"],
  ["1::", "1:0:0:0::/64"],
  ["", ""],
])("counts %s by its network", (address, network) => {
  expect(networkOf(address)).toBe(network);
});

test("limits the values in the filters of one caller's watches, and of all watches", () => {
  const limiter = createCallLimiter({ requestsPerSecond: 1, streamsPerCaller: 1 });
  const releases = [limiter.holdValues("one", 200_000), limiter.holdValues("one", 50_000)];
  expect(() => limiter.holdValues("one", 1)).toThrow("of a caller's open watches would hold more than 250000 values");
  releases[1]?.();
  releases.push(limiter.holdValues("one", 50_000));
  for (const caller of ["two", "three", "four"]) releases.push(limiter.holdValues(caller, 250_000));
  expect(() => limiter.holdValues("five", 1)).toThrow("of all open watches would hold more than 1000000 values");
  releases[0]?.();
  expect(() => limiter.holdValues("five", 1)).not.toThrow();
});
