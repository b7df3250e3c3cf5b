import { once } from "node:events";
import { connect as http2Connect, type IncomingHttpHeaders } from "node:http2";
import { connect } from "node:net";
import { Code } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { CREDENTIALS } from "../support/access.ts";
import * as frames from "../support/http2-frames.ts";
import { frame, grpcHeaders, headerBlock, rawHttp2 } from "../support/http2-frames.ts";
import { failureOf } from "../support/rpc-clients.ts";
import { eventually, startListeners } from "../support/rpc-listeners.ts";
import { envelope, errorIn, type RawResponse } from "../support/rpc-raw.ts";
import { useService } from "../support/service.ts";

const FLEET = "/harborforge.agents.v1.AgentService/GetFleet";

/** Without required credentials, `Host` alone keeps out the pages of a browser. */
const open = useService();
/** With required credentials, `Host` is not checked: a request with two is malformed all the same. */
const closed = useService({ access: CREDENTIALS });

const LISTENERS = ["grpc", "http"] as const;

/** Longer than a response takes; the test closes here a connection that the server keeps open. */
const KEPT_OPEN_MS = 3_000;

/** A request over HTTP/1.1, byte by byte, and the response until the server closes the connection. */
function http1(lines: readonly string[], body = "{}", address = open().addresses.http): Promise<string> {
  return http1Text(`${lines.join("\r\n")}\r\n\r\n${body}`, address);
}

async function http1Text(text: string, address = open().addresses.http): Promise<string> {
  const [host, port] = address.split(":");
  const socket = connect(Number(port), host);
  const chunks: Buffer[] = [];
  socket.setTimeout(KEPT_OPEN_MS, () => socket.destroy());
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.write(Buffer.from(text, "latin1"));
  await once(socket, "close");
  return Buffer.concat(chunks).toString("latin1");
}

const fleet = (...headers: readonly string[]): readonly string[] => [`POST ${FLEET} HTTP/1.1`, ...headers];
const JSON_BODY = ["content-type: application/json", "content-length: 2"];

/** Its error, as Connect writes it; only a request that is answered with 400 has one here. */
function malformed(answer: string) {
  const [head = "", body = ""] = answer.split("\r\n\r\n", 2);
  expect(head).toMatch(/^HTTP\/1\.1 400 /);
  expect(head).toMatch(/^connection: close$/im);
  expect(head).toMatch(/^content-type: application\/json$/im);
  return failureOf(
    errorIn({
      status: 400,
      headers: new Headers({ "content-type": "application/json" }),
      body: Buffer.from(body.replace(/^[\da-f]+\r\n/i, "").replace(/\r\n0$|\r\n$/, "")),
      trailers: new Headers(),
    }),
  );
}

/** Its types do not know this option of Node yet. */
const UNSTRICT = Object.assign({ settings: {} }, { strictSingleValueFields: false });

type Sent = Readonly<Record<string, string | string[]>>;

/** A request over HTTP/2 with the same header twice, which Node's client sends when its check is off. */
async function http2(address: string, headers: Sent, body: Buffer = envelope("")): Promise<RawResponse> {
  const session = http2Connect(`http://${address}`, UNSTRICT);
  session.on("error", () => undefined);
  try {
    const stream = session.request({
      ":method": "POST",
      ":path": FLEET,
      ":authority": "localhost",
      "content-type": "application/grpc",
      te: "trailers",
      ...headers,
    });
    stream.end(body);
    let head: IncomingHttpHeaders = {};
    let trailers: IncomingHttpHeaders = {};
    const chunks: Buffer[] = [];
    stream.on("response", (received) => {
      head = received;
    });
    stream.on("trailers", (received: IncomingHttpHeaders) => {
      trailers = received;
    });
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    await once(stream, "end");
    const web = (from: IncomingHttpHeaders) =>
      new Headers(Object.entries(from).flatMap(([k, v]) => (k.startsWith(":") ? [] : [[k, String(v)]])));
    return {
      status: Number(head[":status"]),
      headers: web(head),
      body: Buffer.concat(chunks),
      trailers: web(trailers),
    };
  } finally {
    session.destroy();
  }
}

/** `0` in the headers or trailers of gRPC. */
const isOk = ({ headers, trailers }: RawResponse): boolean =>
  (headers.get("grpc-status") ?? trailers.get("grpc-status")) === "0";

/** The outcome of one stream of frames that no client would send. */
async function sentAsFrames(address: string, block: Buffer): Promise<"answered" | "reset"> {
  const connection = await rawHttp2(address);
  await connection.send(
    frame(frames.HEADERS, frames.END_HEADERS, 1, block),
    frame(frames.DATA, frames.END_STREAM, 1, envelope("")),
  );
  const got = (type: number) => connection.received.some((one) => one.type === type && one.stream === 1);
  const isOver = () => got(frames.HEADERS) || got(frames.RST_STREAM) || connection.isClosed;
  await eventually("the stream ends", isOver);
  connection.socket.destroy();
  return got(frames.HEADERS) ? "answered" : "reset";
}

describe("over HTTP/1.1", () => {
  test.each([
    ["two that are this machine", ["host: localhost", "host: localhost"]],
    ["a good one first", ["host: localhost", "host: evil.example"]],
    ["a good one last", ["host: evil.example", "Host: localhost"]],
    ["an empty one first", ["host:", "HOST: evil.example"]],
    ["three", ["host: localhost", "host: localhost", "host: localhost"]],
  ])("rejects a request with more than one Host with 400: %s", async (_what, hosts) => {
    for (const { addresses } of [open(), closed()]) {
      const refused = malformed(await http1(fleet(...hosts, ...JSON_BODY), "{}", addresses.http));
      expect(refused).toMatchObject({ reason: "INVALID_FIELD", metadata: { header: "host" } });
      expect(refused.message).toMatch(/^The request has [23] Host headers/);
      expect(refused.message).not.toContain("evil");
    }
  });

  test("serves nothing that comes behind it on the connection", async () => {
    await using listeners = await startListeners();
    const getAgent = (...hosts: readonly string[]): string => {
      const body = JSON.stringify({ agentId: "a" });
      const head = [
        "POST /harborforge.agents.v1.AgentService/GetAgent HTTP/1.1",
        ...hosts.map((host) => `Host: ${host}`),
      ];
      return [...head, "content-type: application/json", `content-length: ${body.length}`, "", body].join("\r\n");
    };
    const [good, bad] = [getAgent("localhost"), getAgent("localhost", "localhost")];
    const answers = await http1Text([good, bad, good].join(""), listeners.connectAddress);
    expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200", "HTTP/1.1 400"]);
    expect(listeners.seen.signals).toHaveLength(1);
  });

  test("rejects it on pages, by GET and for gRPC-Web, too", async () => {
    const twice = ["host: localhost", "host: evil.example"];
    for (const path of ["/healthz", "/readyz", "/metrics", "/", `${FLEET}?connect=v1&encoding=json&message=%7B%7D`]) {
      expect(malformed(await http1([`GET ${path} HTTP/1.1`, ...twice], "")).metadata).toMatchObject({ header: "host" });
    }
    const web = await http1(
      fleet(...twice, "content-type: application/grpc-web+proto", "content-length: 5"),
      "\0\0\0\0\0",
    );
    expect(malformed(web).metadata).toMatchObject({ header: "host" });
  });

  test.each([
    "evil.example, localhost",
    "localhost,evil.example",
    "local host",
    "user@localhost",
    "http://localhost",
    "localhost/x",
  ])("rejects an invalid Host with 400: %s", async (host) => {
    for (const { addresses } of [open(), closed()]) {
      const refused = malformed(await http1(fleet(`host: ${host}`, ...JSON_BODY), "{}", addresses.http));
      expect(refused).toMatchObject({ reason: "INVALID_FIELD", metadata: { header: "host" } });
    }
  });

  test("rejects a request without Host with 400, and does not serve a URL of another host", async () => {
    expect(await http1(fleet(...JSON_BODY))).toMatch(/^HTTP\/1\.1 400 /);
    const elsewhere = [
      `POST http://evil.example${FLEET} HTTP/1.1`,
      "host: localhost",
      "connection: close",
      ...JSON_BODY,
    ];
    expect(await http1(elsewhere)).toMatch(/^HTTP\/1\.1 404 /);
  });

  test.each([
    ["origin", "http://localhost:1", "http://evil.example"],
    ["content-type", "application/json", "text/plain"],
    ["content-encoding", "identity", "gzip"],
    ["connect-timeout-ms", "1000", "2000"],
    ["connect-protocol-version", "1", "1"],
    ["connect-content-encoding", "gzip", "identity"],
    ["grpc-timeout", "1S", "2S"],
    ["grpc-encoding", "gzip", "identity"],
  ])("rejects two %s headers with 400", async (name, first, second) => {
    const rest = name === "content-type" ? ["content-length: 2"] : JSON_BODY;
    for (const pair of [
      [first, second],
      [second, first],
      [first, first],
    ]) {
      const twice = pair.map((value) => `${name}: ${value}`);
      const refused = malformed(await http1(fleet("host: localhost", ...twice, ...rest)));
      expect(refused).toMatchObject({ reason: "INVALID_FIELD", metadata: { header: name } });
    }
  });

  test.each([
    ["two content-length headers", ["content-length: 2", "content-length: 2"]],
    ["content-length and transfer-encoding", ["content-length: 2", "transfer-encoding: chunked"]],
    ["a transfer-encoding that does not end with chunked", ["transfer-encoding: chunked, identity"]],
  ])("rejects %s with 400 and closes the connection", async (_what, headers) => {
    const answer = await http1(fleet("host: localhost", "content-type: application/json", ...headers));
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    expect(answer).not.toContain("200 OK");
  });

  test("serves a request whose lists and own metadata come in several headers", async () => {
    const lists = [
      "accept-encoding: gzip",
      "accept-encoding: br",
      "x-trace: 1",
      "x-trace: 2",
      "te: trailers",
      "te: gzip",
    ];
    expect(await http1(fleet("host: localhost", "connection: close", ...JSON_BODY, ...lists))).toMatch(
      /^HTTP\/1\.1 200 /,
    );
  });

  test("rejects a parameter that is in the query of a GET twice", async () => {
    const once = "connect=v1&encoding=json&message=%7B%7D";
    const get = (query: string) =>
      http1([`GET ${FLEET}?${query} HTTP/1.1`, "host: localhost", "connection: close"], "");
    expect(await get(once)).toMatch(/^HTTP\/1\.1 200 /);
    for (const more of [
      "message=%7B%7D",
      "encoding=proto",
      "base64=1&base64=0",
      "compression=gzip&compression=identity",
    ]) {
      expect(await get(`${once}&${more}`)).toMatch(/^HTTP\/1\.1 400 /);
    }
  });
});

describe.each(LISTENERS)("over HTTP/2 at the %s listener", (listener) => {
  const address = () => open().addresses[listener];

  test.each([
    ["evil.example", "localhost"],
    ["localhost", "evil.example"],
    ["localhost:50051", "localhost"],
    ["localhost", "127.0.0.1"],
  ])("rejects :authority %s with Host %s", async (authority, host) => {
    for (const service of [open(), closed()]) {
      const refused = failureOf(errorIn(await http2(service.addresses[listener], { ":authority": authority, host })));
      expect(refused).toMatchObject({
        code: Code.InvalidArgument,
        reason: "INVALID_FIELD",
        metadata: { header: "host" },
      });
      expect(refused.message).toContain(":authority");
      expect(refused.message).not.toContain("evil");
    }
  });

  test.each([
    ["localhost", "localhost"],
    ["LOCALHOST:80", "localhost"],
    ["[::1]:1", "[::1]:1"],
  ])("serves :authority %s with Host %s, which name the same", async (authority, host) => {
    expect(isOk(await http2(address(), { ":authority": authority, host }))).toBe(true);
  });

  test.each([
    ["origin", "http://localhost:1", "http://evil.example"],
    ["content-type", "application/grpc", "application/json"],
    ["content-encoding", "identity", "gzip"],
    ["connect-timeout-ms", "1000", "2000"],
    ["connect-protocol-version", "1", "1"],
    ["connect-content-encoding", "gzip", "identity"],
    ["grpc-timeout", "1S", "2S"],
    ["grpc-encoding", "gzip", "identity"],
  ])("rejects two %s headers", async (name, first, second) => {
    for (const pair of [
      [first, second],
      [first, first],
    ]) {
      const refused = failureOf(errorIn(await http2(address(), { [name]: pair })));
      expect(refused).toMatchObject({
        code: Code.InvalidArgument,
        reason: "INVALID_FIELD",
        metadata: { header: name },
      });
    }
  });

  test("resets a stream with two Host, :authority, :path or content-length headers, which HTTP/2 calls malformed", async () => {
    const once = grpcHeaders(FLEET);
    expect(await sentAsFrames(address(), headerBlock(once))).toBe("answered");
    const { ":authority": _, ...withoutAuthority } = once;
    for (const block of [
      Buffer.concat([headerBlock(once), headerBlock({ host: "localhost" }), headerBlock({ host: "evil.example" })]),
      Buffer.concat([
        headerBlock(withoutAuthority),
        headerBlock({ host: "localhost" }),
        headerBlock({ host: "localhost" }),
      ]),
      Buffer.concat([headerBlock({ ":authority": "localhost" }), headerBlock(once)]),
      Buffer.concat([headerBlock(once), headerBlock({ host: "" })]),
      Buffer.concat([headerBlock({ ":path": FLEET }), headerBlock(once)]),
      Buffer.concat([
        headerBlock(once),
        headerBlock({ "content-length": "5" }),
        headerBlock({ "content-length": "5" }),
      ]),
    ]) {
      expect(await sentAsFrames(address(), block)).toBe("reset");
    }
  });

  test("checks Host by itself where there is no :authority", async () => {
    const { ":authority": _, ...rest } = grpcHeaders(FLEET);
    for (const [host, data] of [
      ["localhost", true],
      ["evil.example", false],
    ] as const) {
      const connection = await rawHttp2(address());
      await connection.send(
        frame(frames.HEADERS, frames.END_HEADERS, 1, headerBlock({ ...rest, host })),
        frame(frames.DATA, frames.END_STREAM, 1, envelope("")),
      );
      const isOver = () => connection.received.some(({ flags, stream }) => stream === 1 && (flags & 1) === 1);
      await eventually("it is answered", isOver);
      connection.socket.destroy();
      expect(connection.received.some(({ type, stream }) => type === frames.DATA && stream === 1)).toBe(data);
    }
  });
});

test("rejects JSON over HTTP/2 with 400 when :authority and Host differ", async () => {
  const headers = { "content-type": "application/json", ":authority": "localhost", host: "evil.example" };
  const answer = await http2(open().addresses.http, headers, Buffer.from("{}"));
  expect(answer.status).toBe(400);
  expect(failureOf(errorIn(answer))).toMatchObject({ reason: "INVALID_FIELD", metadata: { header: "host" } });
});
