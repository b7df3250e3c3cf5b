import { randomBytes } from "node:crypto";
import { constants } from "node:http2";
import { gunzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  ListAgentsRequestSchema,
  ListAgentsResponseSchema,
  WatchAgentsRequestSchema,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { GzipResponses } from "../../src/rpc/sockets/response-compression.ts";
import { failureOf } from "../support/rpc-clients.ts";
import { eventually, type RunningListeners, startListeners } from "../support/rpc-listeners.ts";
import { envelope, errorIn, http1, http2Call, http2Connect, type RawResponse } from "../support/rpc-raw.ts";

const SERVICE = "/harborforge.agents.v1.AgentService";
const LIST_AGENTS = `${SERVICE}/ListAgents`;
const WATCH = `${SERVICE}/WatchAgents`;
const GET_AGENT = `${SERVICE}/GetAgent`;

let listeners: RunningListeners;
const compression = new GzipResponses();

beforeAll(async () => {
  listeners = await startListeners({ compression });
});
afterAll(async () => {
  await listeners[Symbol.asyncDispose]();
});

async function post(address: string, path: string, headers: Record<string, string>, body: Uint8Array) {
  const session = await http2Connect(address);
  try {
    const { response, stream } = http2Call(session, path, headers);
    stream.end(body);
    return await response;
  } finally {
    session.destroy();
  }
}

/** Agents whose list is large, and compresses well. */
const ALIKE = Array.from({ length: 400 }, (_, index) => `scribe-of-the-harbour-${index}`);
/** Names that do not compress well: random text of all printable characters. */
const RANDOM = Array.from({ length: 50 }, () =>
  String.fromCodePoint(...randomBytes(120).map((byte) => 0x20 + (byte % 95))),
);
const SMALL = ["one"];

const requestFor = (agentIds: readonly string[]): Uint8Array =>
  toBinary(ListAgentsRequestSchema, create(ListAgentsRequestSchema, { filter: { agentIds: [...agentIds] } }));
const responseFor = (agentIds: readonly string[]): Buffer =>
  Buffer.from(
    toBinary(
      ListAgentsResponseSchema,
      create(ListAgentsResponseSchema, { agents: agentIds.map((agentId) => ({ agentId })), revision: 3n }),
    ),
  );

/** The first message of a framed response, and whether it was compressed. */
function firstMessage({ body }: RawResponse): { readonly compressed: boolean; readonly message: Buffer } {
  const message = body.subarray(5, 5 + body.readUInt32BE(1));
  return body[0] === 1 ? { compressed: true, message: gunzipSync(message) } : { compressed: false, message };
}

const FRAMED = [
  ["gRPC at the gRPC listener", () => listeners.grpcAddress, "application/grpc"],
  ["gRPC at the Connect listener", () => listeners.connectAddress, "application/grpc"],
  ["gRPC-Web", () => listeners.connectAddress, "application/grpc-web+proto"],
] as const;

describe.each(FRAMED)("a response of %s", (_name, address, type) => {
  const list = (agentIds: readonly string[], accepted?: string): Promise<RawResponse> => {
    const headers = accepted === undefined ? {} : { "grpc-accept-encoding": accepted };
    return post(address(), LIST_AGENTS, { "content-type": type, ...headers }, envelope(requestFor(agentIds)));
  };

  test("is compressed if it is large and the client accepts gzip", async () => {
    const response = await list(ALIKE, "identity,deflate,gzip");
    expect(response.headers.get("grpc-encoding")).toBe("gzip");
    const { compressed, message } = firstMessage(response);
    expect(compressed).toBe(true);
    expect(response.body.length).toBeLessThan(responseFor(ALIKE).length / 2);
    expect(message.equals(responseFor(ALIKE))).toBe(true);
    expect(response.headers.get("grpc-status") ?? response.trailers.get("grpc-status") ?? "0").toBe("0");
  });

  test.each([
    ["the client does not say what it accepts", ALIKE, undefined],
    ["the client accepts other compressions", ALIKE, "identity,deflate"],
    ["it is small", SMALL, "gzip"],
    ["compression saves less than a fifth", RANDOM, "gzip"],
  ] as const)("is sent as it is if %s", async (_what, agentIds, accepted) => {
    const { compressed, message } = firstMessage(await list(agentIds, accepted));
    expect(compressed).toBe(false);
    expect(message.equals(responseFor(agentIds))).toBe(true);
  });

  test("is an error with the supported compressions if the request has another one", async () => {
    const headers = { "content-type": type, "grpc-encoding": "snappy" };
    const response = await post(address(), GET_AGENT, headers, envelope("abc", 1));
    expect(failureOf(errorIn(response))).toMatchObject({
      code: Code.Unimplemented,
      reason: "UNIMPLEMENTED",
      message: expect.stringContaining('"snappy"'),
    });
    expect(response.headers.get("grpc-accept-encoding")).toMatch(/\bgzip\b/);
  });

  test("is INTERNAL if a message is marked as compressed without a declared compression", async () => {
    const lines = listeners.logged.length;
    for (const path of [GET_AGENT, WATCH, `${SERVICE}/Heartbeat`]) {
      const headers = { "content-type": type };
      const response = await post(address(), path, headers, envelope("abc", 1));
      const last = response.body.subarray(Math.max(0, response.body.indexOf(0x80)));
      const failed = failureOf(errorIn(type === "application/grpc" ? response : { ...response, body: last }));
      expect(failed).toMatchObject({ code: Code.Internal, reason: "INTERNAL", domain: "harborforge.agents" });
      expect(failed.message).toMatch(/^a message is marked as compressed, but no compression was declared/);
    }
    // The caller is at fault: no alarm.
    expect(listeners.logged.slice(lines).join("\n")).not.toMatch(/internal_error|protocol_failed/);
  });
});

describe("a response of Connect", () => {
  const json = (agentIds: readonly string[], headers: Record<string, string> = {}): Promise<RawResponse> =>
    http1(listeners.connectAddress, LIST_AGENTS, {
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify({ filter: { agentIds } }),
    });

  test("is compressed if it is large and the client accepts gzip", async () => {
    const plain = await json(ALIKE);
    const response = await json(ALIKE, { "accept-encoding": "br, gzip" });
    expect(response.headers.get("content-encoding")).toBe("gzip");
    expect(response.headers.get("vary")).toBe("accept-encoding");
    expect(response.headers.get("content-length")).toBe(`${response.body.length}`);
    expect(response.body.length).toBeLessThan(plain.body.length / 2);
    expect(gunzipSync(response.body).equals(plain.body)).toBe(true);
    expect(plain.headers.get("content-encoding")).toBeNull();
    expect(plain.headers.get("vary")).toBe("accept-encoding");
  });

  test.each([
    ["the client rejects gzip", ALIKE, "gzip;q=0"],
    ["it is small", SMALL, "gzip"],
  ] as const)("is sent as it is if %s", async (_what, agentIds, accepted) => {
    const response = await json(agentIds, { "accept-encoding": accepted });
    expect(response.headers.get("content-encoding")).toBeNull();
    expect(JSON.parse(response.body.toString())).toMatchObject({ agents: agentIds.map((agentId) => ({ agentId })) });
  });

  test("is an error with the supported compressions if the request has another one", async () => {
    const response = await json(SMALL, { "content-encoding": "snappy" });
    expect(failureOf(errorIn(response))).toMatchObject({ code: Code.Unimplemented, reason: "UNIMPLEMENTED" });
    expect(response.headers.get("accept-encoding")).toBe("gzip");
  });

  test("is compressed for a read by GET", async () => {
    const query = new URLSearchParams({
      connect: "v1",
      encoding: "json",
      message: JSON.stringify({ filter: { agentIds: ALIKE.slice(0, 300) } }),
    });
    const headers = { "accept-encoding": "gzip" };
    const response = await http1(listeners.connectAddress, `${LIST_AGENTS}?${query}`, { method: "GET", headers });
    expect(response.headers.get("content-encoding")).toBe("gzip");
    expect(JSON.parse(gunzipSync(response.body).toString()).agents).toHaveLength(300);
  });

  test("the page of metrics is compressed, too", async () => {
    for (const path of [
      GET_AGENT,
      `${SERVICE}/SendHeartbeat`,
      LIST_AGENTS,
      "/harborforge.agents.v1.UserService/GetUser",
    ]) {
      const headers = { "content-type": "application/json" };
      await http1(listeners.connectAddress, path, { headers, body: "{}" });
    }
    const headers = { "accept-encoding": "gzip" };
    const response = await http1(listeners.connectAddress, "/metrics", { method: "GET", headers });
    expect(response.headers.get("content-encoding")).toBe("gzip");
    expect(gunzipSync(response.body).toString()).toContain("harborforge_rpc_calls_total");
  });
});

test.each([
  ["gRPC at the gRPC listener", () => listeners.grpcAddress, "application/grpc", "grpc-accept-encoding"],
  ["gRPC at the Connect listener", () => listeners.connectAddress, "application/grpc", "grpc-accept-encoding"],
  ["Connect", () => listeners.connectAddress, "application/connect+proto", "connect-accept-encoding"],
  ["Connect JSON", () => listeners.connectAddress, "application/connect+json", "connect-accept-encoding"],
] as const)("equal messages of watches are compressed once, through %s", async (_name, address, type, accept) => {
  const request = create(WatchAgentsRequestSchema, { filter: { agentIds: ["flood"] } });
  const body = type.endsWith("json")
    ? Buffer.from('{"filter":{"agentIds":["flood"]}}')
    : toBinary(WatchAgentsRequestSchema, request);
  const session = await http2Connect(address());
  const before = compression.compressed;
  const watches = Array.from({ length: 4 }, () => {
    const { stream } = http2Call(session, WATCH, { "content-type": type, [accept]: "gzip" });
    const received: Buffer[] = [];
    stream.on("data", (piece: Buffer) => received.push(piece));
    stream.on("error", () => undefined);
    stream.end(envelope(body));
    return { stream, received };
  });
  const messages = (pieces: Buffer[]): Buffer[] => {
    const whole = Buffer.concat(pieces);
    const found: Buffer[] = [];
    for (let at = 0; at + 5 <= whole.length; ) {
      const end = at + 5 + whole.readUInt32BE(at + 1);
      if (end > whole.length) break;
      expect(whole[at]).toBe(1);
      found.push(gunzipSync(whole.subarray(at + 5, end)));
      at = end;
    }
    return found;
  };
  await eventually("each watch got ten messages", () =>
    watches.every(({ received }) => messages(received).length >= 10),
  );
  const each = watches.map(({ received }) => messages(received).slice(0, 10));
  const made = compression.compressed - before;
  for (const { stream } of watches) stream.close(constants.NGHTTP2_CANCEL);
  session.destroy();
  // The watchers read at different speeds, so all messages may be counted, but not those of each watcher.
  const most = Math.max(...watches.map(({ received }) => messages(received).length));
  expect(made).toBeLessThanOrEqual(most + 2 * watches.length);
  for (const [one, ...rest] of [each]) for (const other of rest) expect(other).toEqual(one);
});
