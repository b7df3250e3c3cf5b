import { once } from "node:events";
import { constants } from "node:http2";
import { create, toBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { GetAgentRequestSchema, WatchAgentsRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import * as frames from "../support/http2-frames.ts";
import { frame, grpcHeaders, headerBlock, rawHttp2 } from "../support/http2-frames.ts";
import { eventually, type RunningListeners, startListeners } from "../support/rpc-listeners.ts";
import { envelope, http2Call, http2Connect } from "../support/rpc-raw.ts";

const GET_AGENT = "/harborforge.agents.v1.AgentService/GetAgent";
const WATCH = "/harborforge.agents.v1.AgentService/WatchAgents";
const GRPC = { "content-type": "application/grpc" };

const REQUEST = envelope(
  toBinary(GetAgentRequestSchema, create(GetAgentRequestSchema, { key: { case: "agentId", value: "a" } })),
);
/** A watch that the fake handlers fill faster than any client reads. */
const FLOOD = envelope(
  toBinary(WatchAgentsRequestSchema, create(WatchAgentsRequestSchema, { filter: { agentIds: ["flood"] } })),
);

const LISTENERS = [
  ["the gRPC listener", (listeners: RunningListeners) => listeners.grpcAddress],
  ["the Connect listener", (listeners: RunningListeners) => listeners.connectAddress],
] as const;

/** As many times as on a connection of months. */
describe.each(LISTENERS)("%s never closes a connection for", (_listener, addressOf) => {
  test("watches that are cancelled before they are read", { timeout: 60_000 }, async () => {
    await using listeners = await startListeners();
    const session = await http2Connect(addressOf(listeners));
    const cancelOne = async (): Promise<void> => {
      const { stream } = http2Call(session, WATCH, GRPC);
      stream.pause();
      stream.end(FLOOD);
      await once(stream, "response");
      stream.close(constants.NGHTTP2_CANCEL);
      await once(stream, "close");
    };
    for (let round = 0; round < 60; round += 1) await Promise.all(Array.from({ length: 8 }, cancelOne));
    const { response, stream } = http2Call(session, GET_AGENT, GRPC);
    stream.end(REQUEST);
    expect((await response).trailers.get("grpc-status")).toBe("0");
    session.destroy();
  });

  test("invalid requests, each rejected individually", { timeout: 60_000 }, async () => {
    await using listeners = await startListeners();
    const connection = await rawHttp2(addressOf(listeners));
    const wrong = headerBlock(grpcHeaders(GET_AGENT, { connection: "close" }));
    let next = 1;
    const refused = (): number => connection.received.filter(({ type }) => type === frames.RST_STREAM).length;
    const sendWrong = async (count: number): Promise<void> => {
      for (let index = 0; index < count; index += 1, next += 2) {
        await connection.send(frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, next, wrong));
      }
    };
    await sendWrong(980);
    await eventually("all were refused", () => refused() === 980);
    // A flood of them is another case, and disconnected: 1 000 at once, and 33 more a second, are none. More
    // than 1 000 in all:
    for (let more = 1; more <= 30; more += 1) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      await sendWrong(1);
      await eventually("it was refused", () => refused() === 980 + more);
    }
    await connection.send(
      frame(frames.HEADERS, frames.END_HEADERS, next, headerBlock(grpcHeaders(GET_AGENT))),
      frame(frames.DATA, frames.END_STREAM, next, REQUEST),
    );
    await eventually("it is served", () =>
      connection.received.some(({ type, stream }) => type === frames.DATA && stream === next),
    );
    connection.socket.destroy();
  });

  test("cancelling and reopening all of its watches at once", { timeout: 60_000 }, async () => {
    await using listeners = await startListeners();
    const session = await http2Connect(addressOf(listeners));
    session.setMaxListeners(0);
    const open = async (count: number) =>
      await Promise.all(
        Array.from({ length: count }, async () => {
          const { stream } = http2Call(session, WATCH, GRPC);
          stream.end(envelope(""));
          await once(stream, "data");
          return stream;
        }),
      );
    for (let round = 0; round < 2; round += 1) {
      const watches = await open(1_500);
      for (const watch of watches) watch.close(constants.NGHTTP2_CANCEL);
    }
    const { response, stream } = http2Call(session, GET_AGENT, GRPC);
    stream.end(REQUEST);
    expect((await response).trailers.get("grpc-status")).toBe("0");
    session.destroy();
  });
});

describe.each(LISTENERS)("%s", (_listener, addressOf) => {
  test("sends GOAWAY to a connection that runs out of stream numbers, and serves new calls", async () => {
    await using listeners = await startListeners();
    const connection = await rawHttp2(addressOf(listeners));
    const last = 2 ** 30 + 1;
    await connection.send(
      frame(frames.HEADERS, frames.END_HEADERS, last, headerBlock(grpcHeaders(GET_AGENT))),
      frame(frames.DATA, frames.END_STREAM, last, REQUEST),
    );
    await eventually("it is served", () =>
      connection.received.some(({ type, stream }) => type === frames.DATA && stream === last),
    );
    await eventually("it is asked to go", () => connection.received.some(({ type }) => type === frames.GOAWAY));
    const [goaway] = connection.received.filter(({ type }) => type === frames.GOAWAY);
    expect(goaway?.payload.readUInt32BE(4)).toBe(constants.NGHTTP2_NO_ERROR);
    await connection.closed;
  });
});
