import { once } from "node:events";
import { connect } from "node:net";
import { gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { GetAgentRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import * as frames from "../support/http2-frames.ts";
import { frame, grpcHeaders, headerBlock, type RawHttp2, rawHttp2 } from "../support/http2-frames.ts";
import { failureOf } from "../support/rpc-clients.ts";
import { eventually, type RunningListeners, startListeners } from "../support/rpc-listeners.ts";
import { envelope, errorIn, http1, http2Call, http2Connect, tcp } from "../support/rpc-raw.ts";

const GET_AGENT = "/harborforge.agents.v1.AgentService/GetAgent";
const HEARTBEAT = "/harborforge.agents.v1.AgentService/Heartbeat";
const SEND_HEARTBEAT = "/harborforge.agents.v1.AgentService/SendHeartbeat";
const WATCH = "/harborforge.agents.v1.AgentService/WatchAgents";

/** A request for an agent that the fake handlers answer. */
const REQUEST = envelope(
  toBinary(GetAgentRequestSchema, create(GetAgentRequestSchema, { key: { case: "agentId", value: "a" } })),
);

const LISTENERS = [
  ["the gRPC listener", (listeners: RunningListeners) => listeners.grpcAddress],
  ["the Connect listener", (listeners: RunningListeners) => listeners.connectAddress],
] as const;

/** An ordinary call, on a connection of its own. */
async function expectServed(address: string): Promise<void> {
  const session = await http2Connect(address);
  const { response, stream } = http2Call(session, GET_AGENT, { "content-type": "application/grpc" });
  stream.end(REQUEST);
  const { headers, trailers } = await response;
  session.destroy();
  expect(trailers.get("grpc-status") ?? headers.get("grpc-status")).toBe("0");
}

/** The connection is closed before a byte is answered, possibly while it connects. */
function expectRefused(address: string): Promise<void> {
  const [host, port] = address.split(":");
  return new Promise((resolve, reject) => {
    connect(Number(port), host)
      .on("error", () => undefined)
      .on("data", () => reject(new Error("it was answered")))
      .once("close", () => resolve());
  });
}

/** A watch of another client, which must stay undisturbed. */
async function openWatch(address: string) {
  const session = await http2Connect(address);
  const { stream } = http2Call(session, WATCH, { "content-type": "application/grpc" });
  stream.end(envelope(""));
  await once(stream, "data");
  return {
    get isOpen() {
      return !stream.closed && !session.destroyed;
    },
    end: () => session.destroy(),
  };
}

const block = headerBlock(grpcHeaders(GET_AGENT));
const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

/** Repeats an action on a connection until it is closed, up to a limit. */
async function repeat(connection: RawHttp2, times: number, make: (index: number) => Buffer): Promise<void> {
  for (let index = 0; index < times && !connection.isClosed; index += 1) {
    await connection.send(make(index));
    // The other end is in this process: it needs its turn of the event loop.
    if (index % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
}

const FLOODS: readonly (readonly [string, (connection: RawHttp2) => Promise<void>])[] = [
  [
    "resets its streams as fast as it opens them",
    (connection) =>
      repeat(connection, 20_000, (index) =>
        Buffer.concat([
          frame(frames.HEADERS, frames.END_HEADERS, 2 * index + 1, block),
          frame(frames.RST_STREAM, 0, 2 * index + 1, u32(8)),
        ]),
      ),
  ],
  [
    "makes the server reset its streams",
    (connection) =>
      repeat(connection, 20_000, (index) =>
        Buffer.concat([
          frame(frames.HEADERS, frames.END_HEADERS, 2 * index + 1, block),
          frame(frames.WINDOW_UPDATE, 0, 2 * index + 1, u32(0)),
        ]),
      ),
  ],
  [
    "sends headers without end",
    async (connection) => {
      await connection.send(frame(frames.HEADERS, 0, 1, block));
      await repeat(connection, 20_000, () =>
        frame(frames.CONTINUATION, 0, 1, headerBlock({ "x-more": "x".repeat(1_000) })),
      );
    },
  ],
  [
    "sends empty continuations without end",
    async (connection) => {
      await connection.send(frame(frames.HEADERS, 0, 1, block));
      await repeat(connection, 50_000, () => frame(frames.CONTINUATION, 0, 1));
    },
  ],
  ["pings without end", (connection) => repeat(connection, 50_000, () => frame(frames.PING, 0, 0, Buffer.alloc(8)))],
  ["changes its settings without end", (connection) => repeat(connection, 50_000, () => frame(frames.SETTINGS, 0, 0))],
  [
    "sends empty data without end",
    async (connection) => {
      await connection.send(frame(frames.HEADERS, frames.END_HEADERS, 1, block));
      await repeat(connection, 50_000, () => frame(frames.DATA, 0, 1));
    },
  ],
  [
    "announces a frame of 16 MiB",
    (connection) => connection.send(Buffer.from([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]), Buffer.alloc(65_536)),
  ],
  [
    "sends 100 kB of headers",
    async (connection) => {
      const long = headerBlock({ ...grpcHeaders(GET_AGENT), "x-long": "x".repeat(100_000) });
      await connection.send(frame(frames.HEADERS, 0, 1, long.subarray(0, 16_384)));
      for (let at = 16_384; at < long.length; at += 16_384) {
        const flags = at + 16_384 < long.length ? 0 : frames.END_HEADERS;
        await connection.send(frame(frames.CONTINUATION, flags, 1, long.subarray(at, at + 16_384)));
      }
    },
  ],
];

describe.each(LISTENERS)("%s", (_listener, addressOf) => {
  test.each(FLOODS)("disconnects a client that %s, without effect on others", async (_what, flood) => {
    await using listeners = await startListeners({ limits: { maxConcurrentStreams: 100 } });
    const address = addressOf(listeners);
    const watch = await openWatch(address);
    const hostile = await rawHttp2(address);
    const flooding = flood(hostile);
    await expectServed(address);
    await flooding;
    await hostile.closed;
    await expectServed(address);
    expect(watch.isOpen).toBe(true);
    watch.end();
    await eventually("all connections are closed", () => listeners.gate.open === 0);
    expect(listeners.logged.filter((line) => JSON.parse(line).level >= 40)).toEqual([]);
  });

  test("survives connections that end anywhere in a call", async () => {
    await using listeners = await startListeners();
    const address = addressOf(listeners);
    const whole = Buffer.concat([
      frames.PREFACE,
      frame(frames.SETTINGS, 0, 0),
      frame(frames.HEADERS, frames.END_HEADERS, 1, block),
      frame(frames.DATA, 0, 1, envelope(Buffer.from([0x12, 0x01, 0x61])).subarray(0, 6)),
      frame(frames.DATA, frames.END_STREAM, 1, Buffer.from([0x01, 0x61])),
    ]);
    for (let length = 1; length < whole.length; length += 3) {
      const socket = await tcp(address);
      socket.resume();
      if (length % 2 === 0) socket.end(whole.subarray(0, length));
      else socket.write(whole.subarray(0, length), () => socket.resetAndDestroy());
    }
    await expectServed(address);
    expect(listeners.logged.filter((line) => JSON.parse(line).level >= 40)).toEqual([]);
  });

  test("rejects a stream whose message grows above 1 MiB when decompressed, and keeps the connection", async () => {
    // Before the connection: compressing blocks this process, and the listener closes connections that send no request in time.
    const bomb = envelope(gzipSync(Buffer.alloc(200_000_000)), 1);
    await using listeners = await startListeners();
    const session = await http2Connect(addressOf(listeners));
    const { response, stream } = http2Call(session, HEARTBEAT, {
      "content-type": "application/grpc",
      "grpc-encoding": "gzip",
    });
    stream.write(bomb);
    const { code, reason, metadata } = failureOf(errorIn(await response));
    expect({ code, reason, metadata }).toEqual({
      code: Code.ResourceExhausted,
      reason: "LIMIT_EXCEEDED",
      metadata: { limit: "maxMessageBytes", maxMessageBytes: "1048576" },
    });
    const next = http2Call(session, GET_AGENT, { "content-type": "application/grpc" });
    next.stream.end(REQUEST);
    expect((await next.response).trailers.get("grpc-status")).toBe("0");
    session.destroy();
  });

  test.each([
    ["as it is", (bytes: Uint8Array) => envelope(bytes), {}],
    ["compressed", (bytes: Uint8Array) => envelope(gzipSync(bytes), 1), { "grpc-encoding": "gzip" }],
  ] as const)("rejects half a million empty values before it decodes them (%s)", async (_how, wrap, headers) => {
    await using listeners = await startListeners();
    const session = await http2Connect(addressOf(listeners));
    // Field 2 or 1, of no length: two bytes each.
    for (const [path, tag] of [
      [HEARTBEAT, 0x12],
      [SEND_HEARTBEAT, 0x0a],
    ] as const) {
      const { response, stream } = http2Call(session, path, { "content-type": "application/grpc", ...headers });
      stream.end(wrap(Buffer.alloc(1_000_000, Buffer.from([tag, 0]))));
      expect(failureOf(errorIn(await response))).toMatchObject({
        code: Code.ResourceExhausted,
        reason: "LIMIT_EXCEEDED",
        metadata: { limit: "maxMessageValues", maxMessageValues: "32768" },
      });
    }
    session.destroy();
  });

  test("rejects a message that announces 4 GiB before it arrives", async () => {
    await using listeners = await startListeners();
    const session = await http2Connect(addressOf(listeners));
    const { response, stream } = http2Call(session, HEARTBEAT, { "content-type": "application/grpc" });
    stream.write(Buffer.concat([Buffer.from([0]), u32(0xffff_ffff)]));
    expect(failureOf(errorIn(await response))).toMatchObject({
      code: Code.ResourceExhausted,
      reason: "LIMIT_EXCEEDED",
    });
    session.destroy();
  });

  test("limits the bytes of incomplete messages, and releases them", async () => {
    await using listeners = await startListeners({
      receiveLimits: { connectionBytes: 400_000, totalBytes: 500_000 },
      limits: { lingerMs: 200 },
    });
    const address = addressOf(listeners);
    const session = await http2Connect(address);
    const open = Array.from({ length: 6 }, () => {
      const call = http2Call(session, HEARTBEAT, { "content-type": "application/grpc" });
      // A message of a megabyte, of which a tenth arrives.
      call.stream.write(Buffer.concat([Buffer.from([0]), u32(1_000_000), Buffer.alloc(100_000)]));
      return call;
    });
    const refused: (ReturnType<typeof errorIn> | "lost")[] = [];
    for (const { response } of open) {
      // The others have no error: they end with the session.
      void response
        .then(errorIn)
        .catch(() => "lost" as const)
        .then((outcome) => refused.push(outcome));
    }
    await eventually("one is refused", () => refused.length > 0);
    expect(refused.length).toBeLessThan(6);
    for (const error of refused) {
      if (error === "lost") throw new Error("it was told nothing");
      expect(failureOf(error)).toMatchObject({
        code: Code.ResourceExhausted,
        reason: "LIMIT_EXCEEDED",
        retryMs: 1_000,
      });
    }
    // Complete messages hold nothing: they pass meanwhile.
    await expectServed(address);
    session.destroy();
    await eventually("all is given back", () => listeners.budget.total === 0);
  });

  test("charges for bytes that arrive one by one", async () => {
    await using listeners = await startListeners({ receiveLimits: { connectionBytes: 500_000 } });
    const address = addressOf(listeners);
    const hostile = await rawHttp2(address);
    const headers = headerBlock(grpcHeaders(HEARTBEAT));
    await hostile.send(
      frame(frames.HEADERS, frames.END_HEADERS, 1, headers),
      frame(frames.DATA, 0, 1, Buffer.concat([Buffer.from([0]), u32(1_000_000)])),
    );
    const ended = (): boolean =>
      hostile.received.some(({ type, stream, flags }) => {
        return (
          stream === 1 && (type === frames.RST_STREAM || (type === frames.HEADERS && (flags & frames.END_STREAM) > 0))
        );
      });
    await repeat(hostile, 20_000, () => (ended() ? Buffer.alloc(0) : frame(frames.DATA, 0, 1, Buffer.from([1]))));
    await eventually("the call is over", ended);
    hostile.socket.destroy();
    await eventually("all is given back", () => listeners.budget.total === 0);
  });

  test("closes a stream whose message is not complete in time", async () => {
    await using listeners = await startListeners({ receiveLimits: { messageMs: 200 } });
    const session = await http2Connect(addressOf(listeners));
    const { response, stream } = http2Call(session, HEARTBEAT, { "content-type": "application/grpc" });
    stream.write(Buffer.concat([envelope(""), Buffer.from([0, 0])]));
    expect(failureOf(errorIn(await response))).toMatchObject({ code: Code.DeadlineExceeded });
    session.destroy();
    expect(listeners.budget.total).toBe(0);
  });

  test("limits the number of connections, and accepts new ones when some are closed", async () => {
    await using listeners = await startListeners({ connectionLimits: { maxConnections: 3 } });
    const address = addressOf(listeners);
    const held = [await http2Connect(address), await http2Connect(address)];
    const third = await http2Connect(address);
    await expectRefused(address);
    expect(listeners.gate.open).toBe(3);
    third.destroy();
    await eventually("its place is free", () => listeners.gate.open === 2);
    await expectServed(address);
    for (const session of held) session.destroy();
    expect(listeners.logged.filter((line) => line.includes('"limit":"maxConnections"'))).toHaveLength(1);
  });

  test("limits the rate of connections of an address", async () => {
    await using listeners = await startListeners({ connectionLimits: { connectionsPerSecond: 1 } });
    const [host, port] = addressOf(listeners).split(":");
    for (let index = 0; index < 100 && listeners.gate.refused === 0; index += 1) {
      const socket = connect(Number(port), host).on("error", () => undefined);
      await new Promise<void>((resolve) => socket.once("connect", resolve).once("close", () => resolve()));
      socket.destroy();
    }
    await eventually("one was refused", () => listeners.gate.refused > 0);
    expect(listeners.logged.filter((line) => line.includes('"limit":"connectionsPerSecond"'))).toHaveLength(1);
  });
});

describe("the Connect listener, over HTTP/1.1", () => {
  test.each([
    ["JSON", "application/json", {}, Buffer.from(`{"beats":[${"{},".repeat(300_000)}{}]}`)],
    ["binary", "application/proto", {}, Buffer.alloc(1_000_000, Buffer.from([0x0a, 0]))],
    [
      "binary, compressed",
      "application/proto",
      { "content-encoding": "gzip" },
      gzipSync(Buffer.alloc(1_000_000, Buffer.from([0x0a, 0]))),
    ],
  ])("rejects half a million empty values before it decodes them (%s)", async (_how, type, headers, body) => {
    await using listeners = await startListeners();
    const answer = await http1(listeners.connectAddress, SEND_HEARTBEAT, {
      headers: { "content-type": type, ...headers },
      body,
    });
    expect(failureOf(errorIn(answer))).toMatchObject({ code: Code.ResourceExhausted, reason: "LIMIT_EXCEEDED" });
  });

  test("closes connections with slow headers, slow bodies, and without requests", async () => {
    await using listeners = await startListeners({
      limits: { headersMs: 300, wholeRequestMs: 600, sniffMs: 300, keepAliveMs: 300, requestMs: 400 },
    });
    const starts = [
      "",
      "P",
      "GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ",
      "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
      `POST ${GET_AGENT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{`,
      "POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
      `POST ${GET_AGENT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1\r\n`,
    ];
    await Promise.all(
      starts.map(async (start) => {
        const socket = await tcp(listeners.connectAddress);
        const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
        socket.resume().write(start);
        // Single bytes do not keep a connection here; they do not help a request that waits for the end of its
        // headers.
        const trickle = setInterval(() => socket.writable && start.endsWith("slow: ") && socket.write("x"), 50);
        await closed;
        clearInterval(trickle);
      }),
    );
    expect((await http1(listeners.connectAddress, "/healthz", { method: "GET" })).status).toBe(200);
  });

  test("survives input that is not HTTP, endless chunk extensions, and pipelined requests", async () => {
    await using listeners = await startListeners();
    const hostile = [
      "\0\0\0\0\r\n\r\n",
      "GET / HTTP/9.9\r\n\r\n",
      `POST ${GET_AGENT} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /x`,
      `POST ${GET_AGENT} HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n`,
      `POST ${GET_AGENT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;${"x".repeat(100_000)}\r\n`,
      `GET /${"x".repeat(100_000)} HTTP/1.1\r\nhost: x\r\n\r\n`,
      `GET / HTTP/1.1\r\n${"x: y\r\n".repeat(100_000)}`,
    ];
    for (const text of hostile) {
      const socket = await tcp(listeners.connectAddress);
      const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
      let answer = "";
      socket.on("data", (chunk: Buffer) => {
        answer += chunk.toString("latin1");
      });
      socket.write(text);
      await closed;
      expect(answer, text.slice(0, 80)).toMatch(/^(HTTP\/1\.1 4\d\d |$)/);
    }
    const piled = await tcp(listeners.connectAddress);
    const some = await tcp(listeners.connectAddress);
    some.write("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(50));
    let answers = "";
    some.on("data", (chunk: Buffer) => {
      answers += chunk.toString("latin1");
    });
    await eventually("some are answered, each", () => answers.split("alive\n").length === 51);
    some.destroy();
    piled.resume().on("error", () => undefined);
    const cut = new Promise<void>((resolve) => piled.once("close", () => resolve()));
    piled.write("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(20_000));
    expect((await http1(listeners.connectAddress, "/healthz", { method: "GET" })).status).toBe(200);
    await cut;
    expect(listeners.logged.filter((line) => JSON.parse(line).level >= 40)).toEqual([]);
  });
});

describe.each(LISTENERS)("%s limits a caller", (_listener, addressOf) => {
  async function getAgent(address: string, path = GET_AGENT) {
    const session = await http2Connect(address);
    const { response, stream } = http2Call(session, path, { "content-type": "application/grpc" });
    stream.end(path === GET_AGENT ? REQUEST : envelope(""));
    const answer = await response;
    session.destroy();
    return answer;
  }

  test("to a rate of calls, and returns a retry delay; health still works", async () => {
    await using listeners = await startListeners({ callLimits: { requestsPerSecond: 1, streamsPerCaller: 10 } });
    const address = addressOf(listeners);
    await getAgent(address);
    await getAgent(address);
    const { code, reason, metadata, retryMs } = failureOf(errorIn(await getAgent(address)));
    expect({ code, reason, metadata }).toEqual({
      code: Code.ResourceExhausted,
      reason: "LIMIT_EXCEEDED",
      metadata: { limit: "requestsPerSecond", requestsPerSecond: "1" },
    });
    expect(retryMs).toBeGreaterThan(0);
    expect(retryMs).toBeLessThanOrEqual(1_000);
    expect((await getAgent(address, "/grpc.health.v1.Health/Check")).trailers.get("grpc-status")).toBe("0");
  });

  test("to a number of streams, and frees their places", async () => {
    await using listeners = await startListeners({ callLimits: { requestsPerSecond: 100, streamsPerCaller: 2 } });
    const address = addressOf(listeners);
    const watches = [await openWatch(address), await openWatch(address)];
    const { code, reason, metadata, retryMs } = failureOf(errorIn(await getAgent(address, WATCH)));
    expect({ code, reason, metadata, retryMs }).toEqual({
      code: Code.ResourceExhausted,
      reason: "LIMIT_EXCEEDED",
      metadata: { limit: "streamsPerCaller", streamsPerCaller: "2" },
      retryMs: 5_000,
    });
    watches[0]?.end();
    await eventually("a place is free", () => listeners.pipeline.openStreams.size === 1);
    watches.push(await openWatch(address));
    for (const watch of watches) watch.end();
  });
});
