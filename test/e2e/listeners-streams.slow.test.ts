import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { grpcClient } from "../support/rpc-clients.ts";
import { eventually, type RunningListeners, SHORT_LIMITS, startListeners } from "../support/rpc-listeners.ts";

const SERVICE = "/harborforge.agents.v1.AgentService";
const HEARTBEAT = `${SERVICE}/Heartbeat`;

const identity = (bytes: Buffer): Buffer => bytes;

let listeners: RunningListeners;

beforeEach(async () => {
  listeners = await startListeners({ limits: SHORT_LIMITS });
});

afterEach(async () => {
  await listeners[Symbol.asyncDispose]();
  expect(listeners.pipeline.openStreams.size).toBe(0);
});

describe.each([
  ["gRPC listener", () => listeners.grpcAddress],
  ["Connect listener", () => listeners.connectAddress],
] as const)("%s", (_name, address) => {
  test("cancels 1 500 of 3 000 streams of one connection at once, and the others continue", async () => {
    const client = grpcClient(address());
    const answered = { streams: 0, beats: 0 };
    const calls = Array.from({ length: 3_000 }, () => {
      const call = client.makeBidiStreamRequest<Buffer, Buffer>(HEARTBEAT, identity, identity);
      call.once("data", () => {
        answered.streams += 1;
        call.on("data", () => {
          answered.beats += 1;
        });
      });
      call.on("error", () => undefined);
      return call;
    });
    await eventually("all streams are open", () => answered.streams === 3_000, 20_000);
    for (const call of calls.slice(0, 1_500)) call.cancel();
    await eventually("the cancelled ones ended", () => listeners.seen.openHandlers === 1_500, 20_000);
    for (const call of calls.slice(1_500)) call.write(Buffer.from([0x08, 1]));
    await eventually("all others answer", () => answered.beats === 1_500, 20_000);
    expect(listeners.pipeline.openStreams.size).toBe(1_500);
    client.close();
    for (const call of calls) call.cancel();
    await eventually("no handler is left", () => listeners.seen.openHandlers === 0, 20_000);
  }, 60_000);
});
