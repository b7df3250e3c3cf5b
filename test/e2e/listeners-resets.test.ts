import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import * as frames from "../support/http2-frames.ts";
import { frame, grpcHeaders, headerBlock, type RawHttp2, rawHttp2 } from "../support/http2-frames.ts";
import { eventually, type RunningListeners, startListeners } from "../support/rpc-listeners.ts";
import { envelope, http2Call, http2Connect } from "../support/rpc-raw.ts";

const WATCH = "/harborforge.agents.v1.AgentService/WatchAgents";

const LISTENERS = [
  ["the gRPC listener", (listeners: RunningListeners) => listeners.grpcAddress],
  ["the Connect listener", (listeners: RunningListeners) => listeners.connectAddress],
] as const;

const block = headerBlock(grpcHeaders(WATCH));
const CANCEL = Buffer.from([0, 0, 0, 8]);

/** Watches that are opened and reset, all in one piece. */
function resets(count: number): Buffer {
  return Buffer.concat(
    Array.from({ length: count }, (_, index) =>
      Buffer.concat([
        frame(frames.HEADERS, frames.END_HEADERS, 2 * index + 1, block),
        frame(frames.DATA, frames.END_STREAM, 2 * index + 1, envelope("")),
        frame(frames.RST_STREAM, 0, 2 * index + 1, CANCEL),
      ]),
    ),
  );
}

async function expectServed(address: string): Promise<void> {
  const session = await http2Connect(address);
  const { response, stream } = http2Call(session, "/grpc.health.v1.Health/Check", {
    "content-type": "application/grpc",
  });
  stream.end(envelope(""));
  expect((await response).trailers.get("grpc-status")).toBe("0");
  session.destroy();
}

describe.each(LISTENERS)("%s, when streams are reset as they are opened", (_listener, addressOf) => {
  test("closes the connection, starts hardly any of them, and serves others", { timeout: 30_000 }, async () => {
    await using listeners = await startListeners();
    const address = addressOf(listeners);
    const hostile = await rawHttp2(address);
    const sent = hostile.send(resets(20_000));
    await expectServed(address);
    await hostile.closed;
    await sent;
    await expectServed(address);
    // A few start: those at the end of a network read, whose resets arrive with the next one.
    expect(listeners.seen.signals.length).toBeLessThan(1_000);
    await eventually("all has ended", () => listeners.seen.openHandlers === 0 && listeners.gate.open === 0);
  });

  test("recognizes the client on new connections, and serves others of the address", {
    timeout: 60_000,
  }, async () => {
    await using listeners = await startListeners();
    const address = addressOf(listeners);
    const comeAgain = async (count: number): Promise<RawHttp2> => {
      const hostile = await rawHttp2(address);
      await hostile.send(resets(count));
      return hostile;
    };
    for (let connection = 0; connection < 7; connection += 1) await (await comeAgain(2_000)).closed;
    // The limit of the address refills, on a slow machine by as much as one connection resets.
    let recognized = false;
    while (!recognized) {
      await (await comeAgain(2_000)).closed;
      // Within the limits of other clients, below.
      const further = await comeAgain(500);
      recognized = await Promise.race([further.closed.then(() => true), sleep(1_000, false)]);
      further.socket.destroy();
    }
    await expectServed(address);
  });

  test("accepts a client that cancels five hundred calls at once", async () => {
    await using listeners = await startListeners();
    const hasty = await rawHttp2(addressOf(listeners));
    await hasty.send(resets(500));
    const last = 1_001;
    await hasty.send(
      frame(frames.HEADERS, frames.END_HEADERS, last, headerBlock(grpcHeaders("/grpc.health.v1.Health/Check"))),
      frame(frames.DATA, frames.END_STREAM, last, envelope("")),
    );
    await eventually("it is served", () =>
      hasty.received.some(({ type, stream }) => type === frames.DATA && stream === last),
    );
    hasty.socket.destroy();
  });
});
