import { describe, expect, test } from "vitest";
import { hashOf, keyIdOf, mintToken } from "../../src/access/token-text.ts";

describe("a token", () => {
  test("is found by its key id, and stored as a hash", () => {
    const { secret, keyId, secretHash } = mintToken();
    expect(keyIdOf(secret)).toBe(keyId);
    expect(secretHash).toHaveLength(32);
    expect(hashOf(secret)).toEqual(secretHash);
  });

  test("is unique", () => {
    const minted = Array.from({ length: 1_000 }, () => mintToken());
    for (const part of ["secret", "keyId"] as const) {
      expect(new Set(minted.map((token) => token[part])).size).toBe(minted.length);
    }
  });

  test("with a damaged character is detected without a query", () => {
    const { secret } = mintToken();
    for (let at = 0; at < secret.length; at += 1) {
      const other = secret[at] === "x" ? "y" : "x";
      expect(keyIdOf(`${secret.slice(0, at)}${other}${secret.slice(at + 1)}`)).toBeUndefined();
    }
  });

  test.each([
    "",
    "hf_",
    "hf__",
    "Bearer",
    "eyJhbGciOiJIUzI1NiJ9.e30.x",
    `hf_${"a".repeat(12)}_${"a".repeat(43)}_000000`,
  ])("is not %j", (text) => {
    expect(keyIdOf(text)).toBeUndefined();
  });

  test("is invalid with any text around it", () => {
    const { secret } = mintToken();
    for (const text of [` ${secret}`, `${secret} `, `${secret}\n`, `${secret}${secret}`]) {
      expect(keyIdOf(text)).toBeUndefined();
    }
  });
});
