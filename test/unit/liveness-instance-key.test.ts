import fc from "fast-check";
import { expect, it } from "vitest";
import { instanceKey } from "../../src/liveness/claims.ts";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

it("is a UUID for any instance_id", () => {
  fc.assert(fc.property(fc.string({ unit: "grapheme" }), (name) => UUID.test(instanceKey(name))));
});

it("is the same on each replica, and with each release: stored keys are compared with it", () => {
  // The first 128 bits of SHA-256, as any other tool computes it.
  expect(instanceKey("claw-7f")).toBe("c38ef3a6-a9d2-d5c7-c778-cffc9cb5ecbf");
});

it("differs for similar names", () => {
  const names = ["claw", "claw ", "Claw", "claw\u0301", "claw-1", "claw-2", ""];
  expect(new Set(names.map(instanceKey)).size).toBe(names.length);
});
