import type { ClientHttp2Session } from "node:http2";
import { deflateSync, gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { GetAgentRequestSchema, HeartbeatRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { Random } from "../chaos/random.ts";
import { failureOf } from "../support/rpc-clients.ts";
import { eventually, type RunningListeners, startListeners } from "../support/rpc-listeners.ts";
import { envelope, errorIn, http1, http2Call, http2Connect, type RawResponse, tcp } from "../support/rpc-raw.ts";

const GET_AGENT = "/harborforge.agents.v1.AgentService/GetAgent";
const HEARTBEAT = "/harborforge.agents.v1.AgentService/Heartbeat";
const MEBIBYTE = 1_048_576;
const GRPC = { "content-type": "application/grpc" };
const GZIPPED = { ...GRPC, "grpc-encoding": "gzip" };

const asking = (agentId: string): Uint8Array =>
  toBinary(GetAgentRequestSchema, create(GetAgentRequestSchema, { key: { case: "agentId", value: agentId } }));
/** A request of almost a mebibyte in a kilobyte. */
const BOMB = envelope(gzipSync(asking("a".repeat(MEBIBYTE - 64))), 1);

const LISTENERS = [
  ["the gRPC listener", (listeners: RunningListeners) => listeners.grpcAddress],
  ["the Connect listener", (listeners: RunningListeners) => listeners.connectAddress],
] as const;

function call(session: ClientHttp2Session, body: Uint8Array, headers: Record<string, string>): Promise<RawResponse> {
  const { response, stream } = http2Call(session, GET_AGENT, headers);
  stream.end(body);
  return response;
}

function statusOf({ headers, trailers }: RawResponse): string | null {
  return trailers.get("grpc-status") ?? headers.get("grpc-status");
}

/** Three connections, with few enough requests on each that none of them has to wait. */
async function flooding(address: string, each: number): Promise<() => void> {
  const sessions = await Promise.all([1, 2, 3].map(() => http2Connect(address)));
  for (const session of sessions) {
    session.setMaxListeners(0);
    for (let n = 0; n < each; n += 1) call(session, BOMB, GZIPPED).catch(() => undefined);
  }
  return () => {
    for (const session of sessions) session.destroy();
  };
}

describe.each(LISTENERS)("%s", (_name, addressOf) => {
  test("rejects compressed calls beyond the memory budget of a connection, and releases what they held", async () => {
    await using listeners = await startListeners({ receiveLimits: { connectionBytes: 4 * MEBIBYTE } });
    const session = await http2Connect(addressOf(listeners));
    session.setMaxListeners(0);
    let most = 0;
    const watching = setInterval(() => {
      most = Math.max(most, listeners.budget.total);
    }, 1);
    const responses = await Promise.all(Array.from({ length: 40 }, () => call(session, BOMB, GZIPPED)));
    clearInterval(watching);
    const refusals = responses.map((response) => failureOf(errorIn(response)));
    const tooMuch = refusals.filter(({ code }) => code === Code.ResourceExhausted);
    expect(tooMuch.length).toBeGreaterThan(20);
    for (const refusal of tooMuch) {
      expect(refusal).toMatchObject({
        reason: "LIMIT_EXCEEDED",
        metadata: { limit: "unfinishedBytes" },
        retryMs: 1_000,
      });
    }
    // The others were read, and judged.
    expect(refusals.filter(({ code }) => code === Code.InvalidArgument).length).toBe(40 - tooMuch.length);
    expect(most).toBeLessThanOrEqual(5 * MEBIBYTE);
    session.destroy();
    await eventually("all is given back", () => listeners.budget.total === 0);
  });

  test("answers another connection after one message of each that floods it", async () => {
    await using listeners = await startListeners();
    const stop = await flooding(addressOf(listeners), 60);
    await eventually("messages wait", () => listeners.queue.size > 20);
    const neighbour = await http2Connect(addressOf(listeners));
    const before = listeners.queue.delivered;
    const usual = await call(neighbour, envelope(asking("a")), GRPC);
    const between = listeners.queue.delivered;
    expect(statusOf(usual)).toBe("0");
    // An uncompressed message does not wait.
    expect(between - before).toBeLessThanOrEqual(3);
    const large = await call(neighbour, envelope(gzipSync(asking("a".repeat(100_000))), 1), GZIPPED);
    expect(failureOf(errorIn(large)).code).toBe(Code.InvalidArgument);
    // One of each of three connections, the current one on arrival, and any that end meanwhile.
    expect(listeners.queue.delivered - between).toBeLessThanOrEqual(7);
    stop();
    neighbour.destroy();
    await eventually("all is given back", () => listeners.budget.total === 0);
  });

  test("decompresses the next message of a stream when the last one was read", async () => {
    await using listeners = await startListeners();
    const session = await http2Connect(addressOf(listeners));
    const { stream, response } = http2Call(session, HEARTBEAT, GZIPPED);
    response.catch(() => undefined);
    const beats = Array.from({ length: 900 }, () => ({ agentId: "b".repeat(1_000) }));
    const body = toBinary(HeartbeatRequestSchema, create(HeartbeatRequestSchema, { sequence: 1n, beats }));
    // They arrive in one piece.
    stream.write(Buffer.concat(Array.from({ length: 5 }, () => envelope(gzipSync(body), 1))));
    let most = 0;
    await eventually("all are read", () => {
      most = Math.max(most, listeners.budget.total);
      return listeners.seen.beats.length === 5;
    });
    expect(most).toBeLessThan(2 * MEBIBYTE);
    session.destroy();
    await eventually("all is given back", () => listeners.budget.total === 0);
  });

  test("reads small messages, consecutive gzip members, and uncompressed messages beside others", async () => {
    await using listeners = await startListeners();
    const session = await http2Connect(addressOf(listeners));
    const bytes = asking("a");
    const members = Buffer.concat([gzipSync(bytes.subarray(0, 1)), gzipSync(bytes.subarray(1))]);
    for (const body of [gzipSync(bytes), members]) {
      expect(statusOf(await call(session, envelope(body, 1), GZIPPED))).toBe("0");
    }
    expect(statusOf(await call(session, envelope(bytes), GZIPPED))).toBe("0");
    session.destroy();
  });

  test("reads compression from the lowest flag, and rejects it without a declared encoding", async () => {
    await using listeners = await startListeners();
    const session = await http2Connect(addressOf(listeners));
    const packed = gzipSync(asking("a"));
    for (const flags of [1, 3, 0x81]) {
      expect(statusOf(await call(session, envelope(packed, flags), GZIPPED))).toBe("0");
    }
    for (const headers of [GRPC, { ...GRPC, "grpc-encoding": "identity" }]) {
      const refused = failureOf(errorIn(await call(session, envelope(asking("a"), 1), headers)));
      // As gRPC prescribes (grpc/doc/compression.md).
      expect(refused.code).toBe(Code.Internal);
      expect(refused.message).toMatch(/no compression was declared/);
    }
    session.destroy();
  });

  test("releases all counted bytes, however calls end", { timeout: 60_000 }, async () => {
    await using listeners = await startListeners({
      receiveLimits: { connectionBytes: 3 * MEBIBYTE, totalBytes: 8 * MEBIBYTE },
    });
    const random = new Random(20_261_130);
    const bodies = [
      BOMB,
      envelope(gzipSync(asking("a")), 1),
      envelope(Buffer.alloc(0), 1),
      envelope(asking("a".repeat(300_000))),
      envelope(Buffer.alloc(5_000, "no gzip"), 1),
      envelope(Buffer.concat([gzipSync(asking("a".repeat(300_000))), gzipSync(asking("b"))]), 1),
      envelope(Buffer.concat([gzipSync(asking("a")), Buffer.from("behind its end")]), 1),
      // Shorter than announced, and two where one is allowed.
      BOMB.subarray(0, 700),
      envelope(asking("a".repeat(300_000))).subarray(0, 200_000),
      Buffer.concat([BOMB, BOMB]),
    ];
    for (let round = 0; round < 12; round += 1) {
      const sessions = await Promise.all([1, 2, 3].map(() => http2Connect(addressOf(listeners))));
      const calls = Array.from({ length: 30 }, async () => {
        const { stream, response } = http2Call(random.pick(sessions), random.pick([GET_AGENT, HEARTBEAT]), {
          ...random.pick([
            GZIPPED,
            GZIPPED,
            GRPC,
            { ...GRPC, "grpc-encoding": "deflate" },
            { ...GRPC, "grpc-encoding": "br" },
          ]),
          ...random.pick([{}, {}, { "grpc-timeout": "20m" }]),
        });
        stream.on("error", () => undefined);
        response.catch(() => undefined);
        stream.write(random.pick(bodies));
        await new Promise((resolve) => setTimeout(resolve, random.between(0, 60)));
        const end = random.pick(["end", "end", "reset", "stay"]);
        if (end === "end") stream.end();
        else if (end === "reset") stream.close(8);
      });
      await Promise.all(calls);
      for (const session of sessions) session.destroy();
    }
    const held = () => listeners.budget.total + listeners.queue.size + listeners.sendBudget.total;
    await eventually("all is given back", () => held() === 0);
    const after = await http2Connect(addressOf(listeners));
    expect(statusOf(await call(after, envelope(gzipSync(asking("a")), 1), GZIPPED))).toBe("0");
    after.destroy();
  });

  test("rejects a message that is longer than its announced size", async () => {
    await using listeners = await startListeners();
    const session = await http2Connect(addressOf(listeners));
    const lies = gzipSync(asking("a".repeat(500_000)));
    lies.writeUInt32LE(10, lies.length - 4);
    expect(failureOf(errorIn(await call(session, envelope(lies, 1), GZIPPED))).code).toBe(Code.InvalidArgument);
    session.destroy();
    await eventually("all is given back", () => listeners.budget.total === 0);
  });

  test("accepts no call on a connection whose client reads no responses, and serves others", async () => {
    await using listeners = await startListeners({ sendLimits: { connectionBytes: 200_000 } });
    const address = addressOf(listeners);
    const isolated = await http2Connect(address);
    const watch = http2Call(isolated, "/harborforge.agents.v1.AgentService/WatchAgents", GRPC);
    watch.response.catch(() => undefined);
    // A watch whose fake never stops sending; its client reads nothing.
    watch.stream.end(envelope(Buffer.from([0x0a, 7, 0x0a, 5, ...Buffer.from("flood")])));
    watch.stream.pause();
    const further = Array.from({ length: 20 }, () => {
      const one = http2Call(isolated, "/harborforge.agents.v1.AgentService/WatchAgents", GRPC);
      one.response.catch(() => undefined);
      one.stream.end(envelope(Buffer.from([0x0a, 7, 0x0a, 5, ...Buffer.from("flood")])));
      one.stream.pause();
      return one;
    });
    await eventually("the connection holds what it may", () => !(listeners.sendBudget.total < 200_000));
    // And a message of each stream that was requested before.
    expect(listeners.sendBudget.total).toBeLessThan(1_100_000);
    const other = await http2Connect(address);
    expect(statusOf(await call(other, envelope(asking("a")), GRPC))).toBe("0");
    expect(further).toHaveLength(20);
    isolated.destroy();
    other.destroy();
    await eventually("all is given back", () => listeners.sendBudget.total === 0);
  });
});

test("the gRPC listener reads deflate, as gRPC's libraries write it", async () => {
  await using listeners = await startListeners();
  const session = await http2Connect(listeners.grpcAddress);
  const body = envelope(deflateSync(asking("a")), 1);
  expect(statusOf(await call(session, body, { ...GRPC, "grpc-encoding": "deflate" }))).toBe("0");
  session.destroy();
});

test("the Connect listener reads compressed JSON, by POST and by GET, with the same result", async () => {
  await using listeners = await startListeners();
  const json = gzipSync(JSON.stringify({ agentId: "a" }));
  const posted = await http1(listeners.connectAddress, GET_AGENT, {
    headers: { "content-type": "application/json", "content-encoding": "gzip" },
    body: json,
  });
  expect([posted.status, String(posted.body)]).toEqual([200, expect.stringContaining('"agentId":"a"')]);
  const query = `encoding=json&compression=gzip&base64=1&message=${json.toString("base64url")}`;
  const got = await http1(listeners.connectAddress, `${GET_AGENT}?${query}`, { method: "GET" });
  expect([got.status, String(got.body)]).toEqual([200, expect.stringContaining('"agentId":"a"')]);
  // The same name.
  const spelled = query.replace("compression", "compressio%6e");
  const alike = await http1(listeners.connectAddress, `${GET_AGENT}?${spelled}`, { method: "GET" });
  expect([alike.status, String(alike.body)]).toEqual([200, expect.stringContaining('"agentId":"a"')]);
  const damaged = await http1(
    listeners.connectAddress,
    `${GET_AGENT}?encoding=json&compression=gzip&base64=1&message=${Buffer.from("no gzip").toString("base64url")}`,
    { method: "GET" },
  );
  expect(failureOf(errorIn(damaged)).code).toBe(Code.InvalidArgument);
});

test("the Connect listener releases all counted bytes of HTTP/1.1 and of Connect's streams, however they end", {
  timeout: 60_000,
}, async () => {
  await using listeners = await startListeners({
    receiveLimits: { connectionBytes: 3 * MEBIBYTE, totalBytes: 8 * MEBIBYTE },
  });
  const random = new Random(11);
  const packed = [
    gzipSync(asking("a")),
    gzipSync(asking("a".repeat(MEBIBYTE - 64))),
    gzipSync(asking("a".repeat(2 * MEBIBYTE))),
    Buffer.alloc(3_000, "no gzip"),
    Buffer.alloc(0),
  ];
  const http1Call = async (): Promise<void> => {
    const body = random.pick(packed);
    const socket = await tcp(listeners.connectAddress);
    const declared = body.length + random.pick([0, 0, 10]);
    const head = `POST ${GET_AGENT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/proto\r\nContent-Encoding: gzip\r\n`;
    socket.write(`${head}Content-Length: ${declared}\r\n\r\n`);
    socket.write(body);
    if (random.chance(0.5)) {
      socket.write(`${head}Content-Length: ${body.length}\r\n\r\n`);
      socket.write(body);
    }
    await new Promise((resolve) => setTimeout(resolve, random.between(0, 60)));
    if (random.chance(0.5)) socket.end();
    await new Promise((resolve) => setTimeout(resolve, random.between(0, 20)));
    socket.destroy();
  };
  const streamed = async (): Promise<void> => {
    const session = await http2Connect(listeners.connectAddress);
    const { stream, response } = http2Call(session, HEARTBEAT, {
      "content-type": "application/connect+proto",
      "connect-content-encoding": "gzip",
      ...random.pick([{}, { "connect-timeout-ms": "20" }]),
    });
    response.catch(() => undefined);
    for (let n = 0; n < 3; n += 1) stream.write(envelope(random.pick(packed), random.pick([0, 1, 1, 2, 3])));
    await new Promise((resolve) => setTimeout(resolve, random.between(0, 60)));
    const end = random.pick(["end", "reset", "destroy"]);
    if (end === "end") stream.end();
    else if (end === "reset") stream.close(8);
    await new Promise((resolve) => setTimeout(resolve, random.between(0, 20)));
    session.destroy();
  };
  for (let round = 0; round < 8; round += 1) {
    await Promise.all(Array.from({ length: 24 }, () => random.pick([http1Call, streamed])()));
  }
  const held = () => listeners.budget.total + listeners.queue.size + listeners.sendBudget.total;
  await eventually("all is given back", () => held() === 0);
});
