import { randomBytes } from "node:crypto";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { TokenService } from "../../gen/harborforge/agents/v1/token_service_pb.ts";
import {
  acceptsGzip,
  COMPRESS_FROM_BYTES,
  GzipResponses,
  mayCompress,
} from "../../src/rpc/sockets/response-compression.ts";

const text = (letter: string, length = 10_000): Buffer => Buffer.alloc(length, letter);

describe("the compression of responses", () => {
  test("compresses a large response to what gunzip reads", async () => {
    const compressed = await new GzipResponses().compress(text("a"));
    expect(compressed?.length).toBeLessThan(200);
    expect(gunzipSync(compressed ?? "").equals(text("a"))).toBe(true);
  });

  test("leaves responses that are small, or whose compression saves less than a fifth", async () => {
    const responses = new GzipResponses();
    expect(responses.compress(text("a", COMPRESS_FROM_BYTES - 1))).toBeUndefined();
    expect(await responses.compress(randomBytes(10_000))).toBeUndefined();
    const partly = Buffer.concat([randomBytes(9_000), text("a", 1_000)]);
    expect(await responses.compress(partly)).toBeUndefined();
    // The second time it is known at once.
    expect(responses.compress(Buffer.from(partly))).toBeUndefined();
    expect(responses.compressed).toBe(2);
  });

  test("compresses equal responses once, also while the first one is being compressed", async () => {
    const responses = new GzipResponses();
    const all = await Promise.all(Array.from({ length: 20 }, () => responses.compress(text("b"))));
    expect(new Set(all).size).toBe(1);
    expect(responses.compress(text("b"))).toBe(all[0]);
    expect(responses.compressed).toBe(1);
    await responses.compress(text("c"));
    expect(responses.compressed).toBe(2);
  });

  test("forgets the oldest responses, so that it keeps four megabytes at most", async () => {
    const responses = new GzipResponses();
    for (let index = 0; index < 40; index += 1)
      await responses.compress(text(String.fromCodePoint(65 + index), 131_072));
    expect(responses.compressed).toBe(40);
    await responses.compress(text(String.fromCodePoint(65 + 39), 131_072));
    expect(responses.compressed).toBe(40);
    await responses.compress(text("A", 131_072));
    expect(responses.compressed).toBe(41);
  });

  test("leaves responses while eight megabytes wait, and compresses again after that", async () => {
    const responses = new GzipResponses();
    const waiting = Array.from({ length: 8 }, (_, index) => responses.compress(text(`${index}`, 1_048_576)));
    expect(waiting.every((result) => result instanceof Promise)).toBe(true);
    expect(responses.compress(text("x", 1_048_576))).toBeUndefined();
    await Promise.all(waiting);
    expect(await responses.compress(text("x", 1_048_576))).toBeDefined();
  });

  test("never compresses responses with secrets", () => {
    expect(Object.values(TokenService.method).map(mayCompress)).not.toContain(true);
    expect(Object.values(AgentService.method).map(mayCompress)).not.toContain(false);
    expect(mayCompress(undefined)).toBe(false);
  });

  test.each([
    ["gzip", true],
    ["identity,deflate,gzip", true],
    ["br, GZIP;q=0.5", true],
    ["*", true],
    ["gzip;q=0", false],
    ["gzip;q=0.0, *", false],
    ["gzip;q=0.001", true],
    ["br, deflate", false],
    ["", false],
    [null, false],
    [undefined, false],
  ])("reads the header %j", (header, accepted) => {
    expect(acceptsGzip(header)).toBe(accepted);
  });
});
