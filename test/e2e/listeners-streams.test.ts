import { once } from "node:events";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { AgentFilterSchema, WatchAgentsRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { failureOf, fromServiceError, grpcClient } from "../support/rpc-clients.ts";
import { eventually, type RunningListeners, SHORT_LIMITS, startListeners } from "../support/rpc-listeners.ts";
import { envelope, errorIn, http1, http2Call, http2Connect, tcp } from "../support/rpc-raw.ts";

const SERVICE = "/harborforge.agents.v1.AgentService";
const GET_AGENT = `${SERVICE}/GetAgent`;
const HEARTBEAT = `${SERVICE}/Heartbeat`;
const WATCH = `${SERVICE}/WatchAgents`;
const GRPC = { "content-type": "application/grpc" };

const identity = (bytes: Buffer): Buffer => bytes;

function watchRequest(...agentIds: string[]): Buffer {
  const filter = create(AgentFilterSchema, { agentIds });
  return Buffer.from(toBinary(WatchAgentsRequestSchema, create(WatchAgentsRequestSchema, { filter })));
}

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
  test("ends the streams of a lost connection with an error", async () => {
    const session = await http2Connect(address());
    const { stream } = http2Call(session, HEARTBEAT, GRPC);
    stream.write(envelope(Buffer.from([0x08, 1])));
    await eventually("the beat arrived", () => listeners.seen.beats.length === 1);
    session.socket.destroy();
    await eventually("the input failed", () => listeners.seen.inputEnds.length === 1);
    expect(listeners.seen.inputEnds).toEqual([Code.Canceled]);
    await eventually("the handler ended", () => listeners.seen.openHandlers === 0);
    expect(listeners.seen.signals.at(-1)?.aborted).toBe(true);
  });

  test("ends the input of a half-closed stream and answers it completely", async () => {
    const session = await http2Connect(address());
    const { stream, response } = http2Call(session, HEARTBEAT, GRPC);
    stream.end(envelope(Buffer.from([0x08, 1])));
    const { trailers } = await response;
    expect(trailers.get("grpc-status")).toBe("0");
    expect(listeners.seen.inputEnds).toEqual(["end"]);
    session.destroy();
  });

  test("sends trailers to an idle stream at its deadline, and ends its handler", async () => {
    const session = await http2Connect(address());
    const { response } = http2Call(session, HEARTBEAT, { ...GRPC, "grpc-timeout": "150m" });
    expect(failureOf(errorIn(await response))).toMatchObject({
      code: Code.DeadlineExceeded,
      reason: "DEADLINE_EXCEEDED",
    });
    await eventually("the handler ended", () => listeners.seen.openHandlers === 0);
    session.destroy();
  });

  test("sends headers before any message", async () => {
    const session = await http2Connect(address());
    const { stream } = http2Call(session, HEARTBEAT, GRPC);
    // Headers that waited for a message of the caller would never arrive.
    await once(stream, "data");
    session.destroy();
  });

  test("stops the handler of a client that does not read, then disconnects it, without effect on others", async () => {
    const session = await http2Connect(address());
    const { stream } = http2Call(session, WATCH, GRPC);
    stream.pause();
    stream.end(envelope(watchRequest("flood")));
    await eventually("the handler was asked", () => listeners.seen.watchMessages > 0);
    const neighbour = http2Call(session, GET_AGENT, GRPC);
    neighbour.stream.end(envelope(Buffer.from([0x0a, 1, 97])));
    expect((await neighbour.response).trailers.get("grpc-status")).toBe("0");
    // 32 000 bytes each: what fits in the windows and the small write buffer.
    expect(listeners.seen.watchMessages).toBeLessThan(20);
    await eventually("the handler was ended", () => listeners.seen.openHandlers === 0);
    await eventually("the stream was reset", () => stream.destroyed || stream.rstCode !== 0 || stream.closed);
    session.destroy();
  });

  test("closes a unary request that does not arrive completely", async () => {
    const session = await http2Connect(address());
    const { stream, response } = http2Call(session, GET_AGENT, GRPC);
    stream.write(envelope(Buffer.from([0x0a, 1, 97])).subarray(0, 6));
    expect(failureOf(errorIn(await response))).toMatchObject({
      code: Code.DeadlineExceeded,
      reason: "DEADLINE_EXCEEDED",
    });
    session.destroy();
  });

  test("ends streams with DRAINING on a drain, and connections close by themselves", async () => {
    const client = grpcClient(address());
    const call = client.makeServerStreamRequest<Buffer, Buffer>(WATCH, identity, identity, watchRequest());
    const failed = once(call, "error").catch((error: unknown) => [error]);
    await once(call, "data");
    expect(listeners.pipeline.openStreams.size).toBe(1);
    const drained =
      address() === listeners.grpcAddress ? listeners.grpcListener.drain() : listeners.connectListener.drain();
    listeners.pipeline.endStreams(
      new Refusal("DRAINING", "this replica is stopping: call another", { retryAfterMs: 100 }),
    );
    const [error] = await failed;
    expect(failureOf(fromServiceError(error))).toMatchObject({
      code: Code.Unavailable,
      reason: "DRAINING",
      retryMs: 100,
    });
    await drained;
    expect(listeners.pipeline.callsInProgress).toBe(0);
    client.close();
  });

  test("drops a client that does not answer pings", async () => {
    await listeners[Symbol.asyncDispose]();
    listeners = await startListeners({ limits: { pingIntervalMs: 100 } });
    const socket = await tcp(address());
    // The preface and an empty SETTINGS frame, and nothing after that.
    socket.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "latin1");
    socket.resume();
    await once(socket, "close");
  });
});

describe("the one port of the Connect listener", () => {
  test("accepts an HTTP/2 preface that arrives byte by byte", async () => {
    const socket = await tcp(listeners.connectAddress);
    socket.setNoDelay(true);
    const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "latin1");
    const received: Buffer[] = [];
    socket.on("data", (chunk) => received.push(chunk));
    for (const byte of preface) {
      socket.write(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    // A SETTINGS frame answers: length, then type 4.
    await eventually("the server's settings came", () => Buffer.concat(received)[3] === 4);
    socket.destroy();
  });

  test("accepts an HTTP/1.1 request whose method begins like the preface, byte by byte", async () => {
    const socket = await tcp(listeners.connectAddress);
    const received: Buffer[] = [];
    socket.on("data", (chunk) => received.push(chunk));
    for (const byte of Buffer.from("PROPFIND /healthz HTTP/1.1\r\nhost: a\r\n\r\n")) {
      socket.write(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await eventually("an answer came", () => Buffer.concat(received).toString().startsWith("HTTP/1.1 405"));
    socket.destroy();
  });

  test.each([
    ["says nothing", ""],
    ["begins a preface and stops", "PRI * HT"],
    ["begins a request and stops", "GET /healthz HTTP/1.1\r\nho"],
    ["sends headers and a body that never ends", "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc"],
  ])("closes a connection that %s", async (_what, bytes) => {
    const socket = await tcp(listeners.connectAddress);
    socket.write(bytes);
    socket.resume();
    await once(socket, "close");
  });

  test("answers a client that closes its side after the request", async () => {
    const socket = await tcp(listeners.connectAddress);
    const received: Buffer[] = [];
    socket.on("data", (chunk) => received.push(chunk));
    socket.end("GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n");
    await once(socket, "close");
    expect(Buffer.concat(received).toString()).toContain("200 OK");
  });

  test("serves its pages over both protocols", async () => {
    const session = await http2Connect(listeners.connectAddress);
    const page = async (path: string) => {
      const over1 = await http1(listeners.connectAddress, path, { method: "GET" });
      const { response, stream } = http2Call(session, path, { ":method": "GET" });
      stream.end();
      const over2 = await response;
      expect([over2.status, over2.body.length > 0]).toEqual([over1.status, true]);
      return over1;
    };
    expect((await page("/healthz")).status).toBe(200);
    expect((await page("/readyz")).status).toBe(200);
    listeners.health.suspend("the database is away");
    const notReady = await page("/readyz");
    expect([notReady.status, notReady.body.toString()]).toEqual([503, "not ready: the database is away\n"]);
    expect((await page("/healthz")).status).toBe(200);
    expect((await page("/metrics")).body.toString()).toContain("harborforge_rpc_calls_total");
    const nothing = await page("/nothing");
    expect([nothing.status, nothing.body.toString()]).toEqual([404, expect.stringContaining("Not found")]);
    session.destroy();
  });
});
