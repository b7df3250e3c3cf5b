import { deflateSync, gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { MAX_MESSAGE_BYTES } from "../../common/contract/message-limit.ts";
import { declaredBytes, inflate, inflateNow, TooLong } from "../../src/rpc/sockets/inflate.ts";

describe("the announced size of a compressed message", () => {
  test("is its length when decompressed, in gzip", () => {
    expect(declaredBytes(gzipSync(Buffer.alloc(100_000)), "gzip")).toBe(100_000);
    expect(declaredBytes(gzipSync(Buffer.alloc(3_000_000)), "gzip")).toBeGreaterThan(MAX_MESSAGE_BYTES);
  });

  test("is never more than its bytes can become", () => {
    const lies = gzipSync("short");
    lies.writeUInt32LE(900_000, lies.length - 4);
    expect(declaredBytes(lies, "gzip")).toBe(lies.length * 1_032);
    expect(declaredBytes(deflateSync(Buffer.alloc(10)), "deflate")).toBeLessThan(20_000);
    expect(declaredBytes(deflateSync(Buffer.alloc(10_000_000)), "deflate")).toBe(MAX_MESSAGE_BYTES);
  });
});

test.each(["gzip", "deflate"] as const)("decompresses %s within its memory limit, and no further", async (encoding) => {
  const pack = encoding === "gzip" ? gzipSync : deflateSync;
  const bytes = Buffer.alloc(50_000, "content");
  expect(inflateNow(pack(bytes), encoding, 50_000).equals(bytes)).toBe(true);
  expect((await inflate(pack(bytes), encoding, 50_000)).equals(bytes)).toBe(true);
  expect(inflateNow(pack(""), encoding, 0)).toHaveLength(0);
  expect(() => inflateNow(pack(bytes), encoding, 49_999)).toThrow(TooLong);
  await expect(inflate(pack(bytes), encoding, 49_999)).rejects.toThrow(TooLong);
  await expect(inflate(Buffer.from("no such thing at all"), encoding, 100)).rejects.toThrow(
    /could not be decompressed/,
  );
});
