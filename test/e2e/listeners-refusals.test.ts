import { gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { GetAgentRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { failure, failureOf, grpcClient, rawUnary } from "../support/rpc-clients.ts";
import { type RunningListeners, startListeners } from "../support/rpc-listeners.ts";
import { envelope, errorIn, http1, http2Call, http2Connect, type RawResponse } from "../support/rpc-raw.ts";

const SERVICE = "/harborforge.agents.v1.AgentService";
const GET_AGENT = `${SERVICE}/GetAgent`;
const LIST_AGENTS = `${SERVICE}/ListAgents`;
const HEARTBEAT = `${SERVICE}/Heartbeat`;
const WATCH = `${SERVICE}/WatchAgents`;

let listeners: RunningListeners;

beforeAll(async () => {
  listeners = await startListeners();
});

afterAll(async () => {
  await listeners[Symbol.asyncDispose]();
});

/** One request over HTTP/2 with the given body. */
async function post(
  address: string,
  path: string,
  headers: Record<string, string>,
  body: Uint8Array,
): Promise<RawResponse> {
  const session = await http2Connect(address);
  try {
    const { response, stream } = http2Call(session, path, headers);
    stream.end(body);
    return await response;
  } finally {
    session.destroy();
  }
}

const refusal = (response: RawResponse) => failureOf(errorIn(response));

describe("JSON at the Connect listener", () => {
  const json = (path: string, body: string, headers: Record<string, string> = {}) =>
    http1(listeners.connectAddress, path, { headers: { "content-type": "application/json", ...headers }, body });

  test.each([
    ["broken JSON", '{"agentId"', [""]],
    ["an unknown field", '{"agentIdd":"a"}', ["agentIdd"]],
    ["an unknown field of a message within", '{"filter":{"status":["idle"]}}', ["filter.status"]],
    ["an unknown enum name", '{"filter":{"statuses":["idle"]}}', ["filter.statuses[0]"]],
    ["an unknown enum number", '{"filter":{"statuses":[17]}}', ["filter.statuses[0]"]],
    ["a field of the wrong type", '{"filter":{"agentIds":[17]}}', ["filter.agentIds[0]"]],
    ["an array", "[]", [""]],
    ["nothing at all", "", [""]],
  ])("with %s is rejected", async (_what, body, fields) => {
    const response = await json(LIST_AGENTS, body);
    expect(response.status).toBe(400);
    expect(refusal(response)).toMatchObject({
      code: Code.InvalidArgument,
      reason: "INVALID_FIELD",
      domain: "harborforge.agents",
      fields,
    });
  });

  test("that is valid is answered", async () => {
    const response = await json(GET_AGENT, '{"agentId":"scribe"}');
    expect(response.status).toBe(200);
    expect(JSON.parse(response.body.toString())).toEqual({
      agent: { id: "7", agentId: "scribe", status: "AGENT_STATUS_IDLE" },
    });
  });

  test("with a huge key gets a short error", async () => {
    const failed = refusal(await json(LIST_AGENTS, `{"${"k".repeat(300_000)}":1}`));
    expect(failed.code).toBe(Code.InvalidArgument);
    expect(failed.message.length).toBeLessThan(1_100);
  });

  test("with a lone surrogate that the error quotes gets an error", async () => {
    expect(refusal(await json(LIST_AGENTS, '{"\\ud800":1}'))).toMatchObject({ reason: "INVALID_FIELD" });
  });

  test("serves reads by GET", async () => {
    const message = encodeURIComponent('{"agentId":"scribe"}');
    const response = await http1(listeners.connectAddress, `${GET_AGENT}?connect=v1&encoding=json&message=${message}`, {
      method: "GET",
    });
    expect(response.status).toBe(200);
    const broken = await http1(
      listeners.connectAddress,
      `${GET_AGENT}?connect=v1&encoding=proto&base64=1&message=***`,
      {
        method: "GET",
      },
    );
    expect(refusal(broken)).toMatchObject({ code: Code.InvalidArgument, reason: "INVALID_FIELD" });
  });

  test.each([
    ["", "the query has no parameter encoding: a GET request needs ?connect=v1&encoding=json&message=…"],
    ["?connect=v1&encoding=json", "the query has no parameter message: a GET request needs"],
    ["?encoding=xml&message=a", 'the query has the encoding "xml": use json or proto'],
    ["?encoding=json&message=%7B%7D&message=%7B%7D", 'the query has the parameter "message" more than once'],
    ["?encoding=json&message=%ff", "the query must be UTF-8, percent-encoded"],
    ["?encoding=proto&base64=1&message=***", "the message in the query is not base64"],
  ])("explains the query %j of a read by GET", async (query, message) => {
    const response = await http1(listeners.connectAddress, `${GET_AGENT}${query}`, { method: "GET" });
    expect(response.status).toBe(400);
    expect(refusal(response)).toMatchObject({ code: Code.InvalidArgument, reason: "INVALID_FIELD" });
    expect(refusal(response).message).toContain(message);
  });

  test("is explained if a method that streams gets it without envelopes", async () => {
    const remedy = "each of its messages needs the five bytes of an envelope before it: use a client such as buf curl";
    const plain = await json(WATCH, "{}");
    expect(plain.status).toBe(415);
    expect(refusal(plain).message).toContain(`WatchAgents streams, so ${remedy}`);
    for (const body of ["{}", '{"filter":{"agentIds":["a"]}}', `{"filter":{"agentIds":["${"a".repeat(200_000)}"]}}`]) {
      const unframed = await json(WATCH, body, { "content-type": "application/connect+json" });
      expect(refusal(unframed)).toMatchObject({ code: Code.InvalidArgument, reason: "INVALID_FIELD" });
      expect(refusal(unframed).message).toContain(`the body is plain JSON: ${remedy}`);
    }
  });

  test("explains rejected verbs and content types", async () => {
    const put = await http1(listeners.connectAddress, GET_AGENT, {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
    expect(put.status).toBe(405);
    expect(put.headers.get("allow")).toBe("POST, GET");
    expect(refusal(put)).toMatchObject({ code: Code.Unimplemented, reason: "UNIMPLEMENTED" });
    const xml = await http1(listeners.connectAddress, GET_AGENT, {
      headers: { "content-type": "text/xml" },
      body: "<a/>",
    });
    expect(xml.status).toBe(415);
    expect(refusal(xml).message).toMatch(
      /^the request has the content type "text\/xml": use one of application\/json, /,
    );
    expect(refusal(xml)).toMatchObject({ code: Code.InvalidArgument, reason: "INVALID_FIELD" });
  });

  test("rejects a malformed deadline, and accepts a very long one", async () => {
    const malformed = await json(GET_AGENT, "{}", { "connect-timeout-ms": "soon" });
    expect(refusal(malformed)).toMatchObject({ code: Code.InvalidArgument, reason: "INVALID_FIELD" });
    const long = await json(GET_AGENT, '{"agentId":"a"}', { "connect-timeout-ms": "9999999999" });
    expect(long.status).toBe(200);
  });

  test("rejects a message that grows above 1 MiB when decompressed", async () => {
    const body = gzipSync(JSON.stringify({ pageToken: "x".repeat(3_000_000) }));
    const response = await http1(listeners.connectAddress, LIST_AGENTS, {
      headers: { "content-type": "application/json", "content-encoding": "gzip" },
      body,
    });
    expect(refusal(response)).toMatchObject({ code: Code.ResourceExhausted, reason: "LIMIT_EXCEEDED" });
  });

  test("rejects damaged compression as the caller's fault", async () => {
    const response = await http1(listeners.connectAddress, LIST_AGENTS, {
      headers: { "content-type": "application/json", "content-encoding": "gzip" },
      body: "no gzip",
    });
    expect(refusal(response)).toMatchObject({ code: Code.InvalidArgument, reason: "INVALID_FIELD" });
  });
});

const FRAMED = [
  ["gRPC at the gRPC listener", () => listeners.grpcAddress, "application/grpc"],
  ["gRPC at the Connect listener", () => listeners.connectAddress, "application/grpc"],
  ["gRPC-Web", () => listeners.connectAddress, "application/grpc-web+proto"],
] as const;

describe.each(FRAMED)("%s", (_name, address, contentType) => {
  const type = { "content-type": contentType };

  test("rejects malformed protobuf as the caller's fault", async () => {
    const failed = refusal(await post(address(), GET_AGENT, type, envelope(Buffer.from([0x0a, 0xff, 0x01]))));
    expect(failed).toMatchObject({ code: Code.InvalidArgument, reason: "INVALID_FIELD" });
    const inStream = refusal(await post(address(), WATCH, type, envelope(Buffer.from([0x0a, 0xff, 0x01]))));
    expect(inStream).toMatchObject({ code: Code.InvalidArgument, reason: "INVALID_FIELD" });
  });

  test("rejects an unknown method and an unknown service", async () => {
    for (const path of [`${SERVICE}/GetAgnt`, "/no.such.Service/Call"]) {
      const failed = refusal(await post(address(), path, type, envelope("")));
      expect(failed).toMatchObject({ code: Code.Unimplemented, reason: "UNIMPLEMENTED", domain: "harborforge.agents" });
      const like = path.startsWith(SERVICE) ? "; did you mean GetAgent?" : "";
      expect(failed.message).toBe(`there is no method ${path} here${like}`);
    }
  });

  test("rejects a message above 1 MiB, and accepts one of exactly that size", async () => {
    // Field 2, a string: a tag, a length of three bytes, and text that fills up the message.
    const fits = Buffer.concat([Buffer.from([0x1a, 0xfc, 0xff, 0x3f]), Buffer.alloc(1_048_572, "x")]);
    expect(fits.length).toBe(1_048_576);
    const accepted = await post(address(), LIST_AGENTS, type, envelope(fits));
    expect(() => errorIn(accepted)).toThrow();
    const failed = refusal(await post(address(), LIST_AGENTS, type, envelope(Buffer.alloc(1_048_577))));
    expect(failed).toMatchObject({ code: Code.ResourceExhausted, reason: "LIMIT_EXCEEDED" });
  });

  test("rejects a request without a message, and one with two", async () => {
    expect(refusal(await post(address(), GET_AGENT, type, Buffer.alloc(0)))).toMatchObject({
      code: Code.Unimplemented,
    });
    const two = Buffer.concat([envelope(""), envelope("")]);
    expect(refusal(await post(address(), WATCH, type, two))).toMatchObject({
      code: Code.Unimplemented,
      reason: "UNIMPLEMENTED",
    });
  });

  test("rejects a malformed deadline, and accepts one of 1000 hours", async () => {
    const keyed = toBinary(
      GetAgentRequestSchema,
      create(GetAgentRequestSchema, { key: { case: "userId", value: 1n } }),
    );
    const malformed = await post(address(), GET_AGENT, { ...type, "grpc-timeout": "soon" }, envelope(""));
    expect(refusal(malformed)).toMatchObject({ code: Code.InvalidArgument, reason: "INVALID_FIELD" });
    const long = await post(address(), GET_AGENT, { ...type, "grpc-timeout": "1000H" }, envelope(keyed));
    expect(() => errorIn(long)).toThrow();
  });

  test("rejects unknown and damaged compression", async () => {
    const unknown = { ...type, "grpc-encoding": "snappy" };
    expect(refusal(await post(address(), GET_AGENT, unknown, envelope("abc", 1)))).toMatchObject({
      code: Code.Unimplemented,
      reason: "UNIMPLEMENTED",
    });
    const damaged = { ...type, "grpc-encoding": "gzip" };
    expect(refusal(await post(address(), GET_AGENT, damaged, envelope("no gzip", 1)))).toMatchObject({
      code: Code.InvalidArgument,
      reason: "INVALID_FIELD",
    });
    const bomb = envelope(gzipSync(Buffer.alloc(3_000_000)), 1);
    expect(refusal(await post(address(), LIST_AGENTS, damaged, bomb))).toMatchObject({
      code: Code.ResourceExhausted,
      reason: "LIMIT_EXCEEDED",
    });
  });

  test("accepts compressed requests", async () => {
    const body = envelope(gzipSync(Buffer.from([0x0a, 1, 97])), 1);
    const response = await post(address(), GET_AGENT, { ...type, "grpc-encoding": "gzip" }, body);
    expect(() => errorIn(response)).toThrow();
  });
});

describe("a bidirectional stream over HTTP/1.1", () => {
  test.each([
    ["application/connect+json", 200],
    ["application/connect+proto", 200],
    ["application/grpc-web+proto", 200],
    ["application/grpc", 200],
    ["application/json", 501],
  ])("is rejected in the form of %s", async (contentType, status) => {
    const response = await http1(listeners.connectAddress, HEARTBEAT, {
      headers: { "content-type": contentType },
      body: "",
    });
    expect(response.status).toBe(status);
    expect(response.headers.get("connection")).toBe("close");
    expect(refusal(response)).toMatchObject({
      code: Code.Unimplemented,
      reason: "HTTP2_REQUIRED",
      domain: "harborforge.agents",
    });
  });
});

test("an unknown method is rejected in the form of Connect, too", async () => {
  for (const [contentType, status] of [
    ["application/json", 404],
    ["application/proto", 404],
    ["application/connect+json", 200],
  ] as const) {
    const response = await http1(listeners.connectAddress, `${SERVICE}/GetAgnt`, {
      headers: { "content-type": contentType },
      body: "",
    });
    expect(response.status).toBe(status);
    expect(refusal(response)).toMatchObject({ code: Code.Unimplemented, reason: "UNIMPLEMENTED" });
  }
});

test("a page that does not exist names the method that is like it", async () => {
  for (const [path, like] of [
    [`${SERVICE}/GetAgnt`, "; did you mean GetAgent?"],
    ["/harborforge.agents.v1.AgentsService/GetAgent", "; did you mean /harborforge.agents.v1.AgentService/GetAgent?"],
    ["/favicon.ico", ""],
    [`/${"x".repeat(10_000)}/GetAgent`, ""],
  ] as const) {
    const response = await http1(listeners.connectAddress, path, { method: "GET" });
    expect(response.status).toBe(404);
    expect(response.body.toString()).toContain(`there is no method ${path} here${like}.\n`);
  }
});

test("an unknown field in JSON of a stream is rejected", async () => {
  for (const path of [WATCH, HEARTBEAT]) {
    const response = await post(
      listeners.connectAddress,
      path,
      { "content-type": "application/connect+json" },
      envelope('{"a":1}'),
    );
    // The heartbeat stream sends a first response: the error is in the last envelope.
    const last = response.body.subarray(response.body.lastIndexOf(Buffer.from('{"error"')) - 5);
    expect(refusal({ ...response, body: last })).toMatchObject({ reason: "INVALID_FIELD", fields: ["a"] });
  }
});

test("invalid JSON of a beat does not end a heartbeat stream, and does not affect other beats", async () => {
  const beats = [{ agentId: "a" }, { agentId: "b", exhaustion: { retryAfter: "1s1" } }, { status: "busy" }];
  const type = { "content-type": "application/connect+json" };
  const before = listeners.seen.beats.length;
  const response = await post(listeners.connectAddress, HEARTBEAT, type, envelope(JSON.stringify({ beats })));
  expect(response.body.toString()).not.toContain('"error"');
  expect(listeners.seen.beats.slice(before)).toEqual([3]);
});

test("the gRPC listener names its protocol to other clients", async () => {
  for (const contentType of ["application/json", "application/grpc-web+proto", "application/grpc+json"]) {
    const response = await post(listeners.grpcAddress, GET_AGENT, { "content-type": contentType }, Buffer.alloc(0));
    expect(response.status).toBe(415);
    expect(response.body.toString()).toContain("application/grpc");
  }
});

test("a deadline that grpc-js enforces itself has its reason", async () => {
  const client = grpcClient(listeners.grpcAddress);
  const session = await http2Connect(listeners.grpcAddress);
  try {
    // Never half-closed: the request does not reach its handler.
    const { response } = http2Call(session, GET_AGENT, { "content-type": "application/grpc", "grpc-timeout": "100m" });
    expect(refusal(await response)).toMatchObject({ code: Code.DeadlineExceeded, reason: "DEADLINE_EXCEEDED" });
    expect(
      await failure(
        rawUnary(client, GET_AGENT, Buffer.from([0x0a, 1, 97])).then(() => rawUnary(client, "/a.B/C", Buffer.alloc(0))),
      ),
    ).toMatchObject({
      code: Code.Unimplemented,
      reason: "UNIMPLEMENTED",
    });
  } finally {
    client.close();
    session.destroy();
  }
});

test("an unknown enum name in JSON is rejected with the known names", async () => {
  const response = await http1(listeners.connectAddress, LIST_AGENTS, {
    headers: { "content-type": "application/json" },
    body: '{"filter":{"statuses":["idle"]}}',
  });
  expect(refusal(response).message).toBe(
    'filter.statuses[0]: "idle" is not a value of AgentStatus: use one of AGENT_STATUS_IDLE, AGENT_STATUS_ON_CALL, AGENT_STATUS_BUSY, AGENT_STATUS_EXHAUSTED, AGENT_STATUS_OFFLINE',
  );
});

test("a malformed host is rejected without further effect", async () => {
  const response = await http1(listeners.connectAddress, GET_AGENT, {
    headers: { "content-type": "application/json", host: "[no host" },
    body: "{}",
  });
  expect(refusal(response)).toMatchObject({ code: Code.InvalidArgument, reason: "INVALID_FIELD" });
  expect((await http1(listeners.connectAddress, "/healthz", { method: "GET" })).status).toBe(200);
});

test("a draining replica rejects calls on both listeners", async () => {
  listeners.refuse = new Refusal("DRAINING", "this replica is stopping: call another", { retryAfterMs: 0 });
  try {
    for (const address of [listeners.grpcAddress, listeners.connectAddress]) {
      for (const path of [GET_AGENT, WATCH, HEARTBEAT]) {
        const failed = refusal(await post(address, path, { "content-type": "application/grpc" }, envelope("")));
        expect(failed).toMatchObject({ code: Code.Unavailable, reason: "DRAINING", retryMs: 0 });
      }
    }
  } finally {
    listeners.refuse = undefined;
  }
});
