import { randomBytes } from "node:crypto";
import { connect } from "node:http2";
import { create, toBinary } from "@bufbuild/protobuf";
import { trace } from "@opentelemetry/api";
import { NodeSDK, tracing } from "@opentelemetry/sdk-node";
import { createServiceClients } from "harborforge-agents-client";
import { describe, expect, test } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { HeartbeatRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { startOtlpReceiver } from "../support/otlp-receiver.ts";
import { openStage, type Serving, says } from "../support/program.ts";
import { until } from "../support/until.ts";

const SERVER = 2;
const CLIENT = 3;

/** A trace of a caller, as its SDK would send it. */
function newTrace() {
  const traceId = randomBytes(16).toString("hex");
  const spanId = randomBytes(8).toString("hex");
  return { traceId, spanId, traceparent: `00-${traceId}-${spanId}-01` };
}

async function post(
  { http }: Serving,
  method: string,
  request: object,
  headers: Readonly<Record<string, string>> = {},
) {
  const answer = await fetch(`${http}/harborforge.agents.v1.${method}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(request),
  });
  return { status: answer.status, headers: answer.headers, body: await answer.text() };
}

/** A unary call of the gRPC listener with an empty message. */
async function grpcCall({ grpc }: Serving, method: string, headers: Readonly<Record<string, string>>) {
  const session = connect(grpc);
  try {
    const stream = session.request({
      ":method": "POST",
      ":path": `/harborforge.agents.v1.${method}`,
      "content-type": "application/grpc",
      te: "trailers",
      ...headers,
    });
    stream.end(Buffer.alloc(5));
    const answer: Record<string, unknown> = {};
    stream.on("response", (received) => Object.assign(answer, received));
    stream.on("trailers", (received) => Object.assign(answer, received));
    stream.resume();
    await new Promise((resolve) => stream.once("close", resolve));
    return answer;
  } finally {
    session.close();
  }
}

const OTEL = { OTEL_EXPORTER_OTLP_PROTOCOL: "http/json", OTEL_BSP_SCHEDULE_DELAY: "100" };

describe("tracing", () => {
  test("exports spans of calls, streams, groups and statements to a collector, in the callers' traces", async () => {
    await using stage = await openStage();
    await using database = await createTestDatabase();
    await using collector = await startOtlpReceiver();
    const env = { DATABASE_URL: database.url, OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, ...OTEL };
    const service = await stage.serve({ env: { ...env, HARBORFORGE_LOG_LEVEL: "debug" } });

    // A unary call of the Connect listener that makes a transition.
    const creating = newTrace();
    const user = { username: "ada", agentId: "ada-1", clawIdentifier: "claw-1" };
    const created = await post(service, "UserService/CreateUser", user, { traceparent: creating.traceparent });
    expect(created.status).toBe(200);
    const span = await until(
      "the span of the call",
      () => collector.named("harborforge.agents.v1.UserService/CreateUser")[0],
    );
    expect(span).toMatchObject({
      traceId: creating.traceId,
      parentSpanId: creating.spanId,
      kind: SERVER,
      attributes: {
        "rpc.system.name": "connectrpc",
        "rpc.method": "harborforge.agents.v1.UserService/CreateUser",
        "rpc.response.status_code": "ok",
      },
      service: { "service.name": "harborforge-agents", "service.version": expect.stringMatching(/^\d/) },
    });
    expect(created.headers.get("traceresponse")).toBe(`00-${creating.traceId}-${span.spanId}-01`);

    // Its group is a span of its own, with a link to the call, and its statement within the group.
    const group = await until("the span of the group", () =>
      collector.named("commit group").find(({ links = [] }) => links.some(({ spanId }) => spanId === span.spanId)),
    );
    expect(group.traceId).not.toBe(creating.traceId);
    const commit = await until("the statement", () =>
      collector.named("commit-changes").find(({ traceId }) => traceId === group.traceId),
    );
    expect(commit).toMatchObject({
      kind: CLIENT,
      parentSpanId: group.spanId,
      attributes: { "db.system.name": "postgresql", "db.query.summary": "commit-changes" },
    });

    // The trace of the call that made the transition is in its audit line.
    const audit = await until("the audit line", () =>
      service.stderr.split("\n").find((line) => line.includes('"event":"audit.call"') && line.includes("CreateUser")),
    );
    expect(JSON.parse(audit)).toMatchObject({ audit: true, traceId: creating.traceId });

    // The gRPC listener, with a call that fails by its caller's fault.
    const failing = newTrace();
    const answer = await grpcCall(service, "AgentService/GetAgent", { traceparent: failing.traceparent });
    expect(answer["grpc-status"]).toBe("3");
    const failed = await until("the span of the failed call", () =>
      collector.named("harborforge.agents.v1.AgentService/GetAgent").find(({ traceId }) => traceId === failing.traceId),
    );
    expect(failed).toMatchObject({
      parentSpanId: failing.spanId,
      attributes: { "rpc.system.name": "grpc", "rpc.response.status_code": "INVALID_ARGUMENT" },
    });
    expect(failed.attributes["error.type"]).toBeUndefined();
    expect(String(answer.traceresponse)).toContain(failing.traceId);
    const line = await until("its log line", () =>
      service.stderr.split("\n").find((one) => one.includes('"event":"call.failed"') && one.includes(failing.traceId)),
    );
    expect(JSON.parse(line)).toMatchObject({ traceId: failing.traceId, code: "INVALID_ARGUMENT" });

    // A read has its statement within its own span.
    const reading = newTrace();
    await post(service, "AgentService/GetAgent", { agentId: "ada-1" }, { traceparent: reading.traceparent });
    const read = await until("the statement of the read", () =>
      collector.spans.find(({ traceId, kind }) => traceId === reading.traceId && kind === CLIENT),
    );
    const readSpan = collector.spans.find(({ spanId }) => spanId === read.parentSpanId);
    expect(readSpan?.name ?? "harborforge.agents.v1.AgentService/GetAgent").toBe(
      "harborforge.agents.v1.AgentService/GetAgent",
    );

    // No SQL and no content of calls.
    const sent = collector.bodies.join("\n");
    expect(sent).not.toMatch(/SELECT|INSERT|UPDATE|ada-1|claw-1/);
  });

  test("makes a short span at the opening of a stream and one at its end, linked, and none for a beat", async () => {
    await using stage = await openStage();
    await using database = await createTestDatabase();
    await using collector = await startOtlpReceiver();
    const env = { DATABASE_URL: database.url, OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, ...OTEL };
    const service = await stage.serve({ env });
    await post(service, "UserService/CreateUser", { username: "ada", agentId: "ada-1", clawIdentifier: "claw-1" });

    const trace = newTrace();
    const watching = new AbortController();
    const frame = Buffer.concat([Buffer.from([0, 0, 0, 0, 2]), Buffer.from("{}")]);
    const answer = await fetch(`${service.http}/harborforge.agents.v1.AgentService/WatchAgents`, {
      method: "POST",
      headers: { "content-type": "application/connect+json", traceparent: trace.traceparent },
      body: frame,
      signal: watching.signal,
    });
    await answer.body?.getReader().read();
    const method = "harborforge.agents.v1.AgentService/WatchAgents";
    const opening = await until("the span of the opening", () => collector.named(method)[0]);
    expect(opening).toMatchObject({
      traceId: trace.traceId,
      parentSpanId: trace.spanId,
      kind: SERVER,
      attributes: { "rpc.response.status_code": "ok" },
    });
    expect(collector.named(`${method} end`)).toEqual([]);
    watching.abort();
    const end = await until("the span of the end", () => collector.named(`${method} end`)[0]);
    expect(end.links).toMatchObject([{ traceId: opening.traceId, spanId: opening.spanId }]);
    expect(end.attributes).toMatchObject({ "rpc.method": method, "rpc.response.status_code": "canceled" });

    // A stream of heartbeats whose beats make transitions and renew leases.
    const session = connect(service.grpc);
    const stream = session.request({
      ":method": "POST",
      ":path": "/harborforge.agents.v1.AgentService/Heartbeat",
      "content-type": "application/grpc",
      te: "trailers",
      traceparent: newTrace().traceparent,
    });
    let received = 0;
    stream.on("data", (bytes: Buffer) => {
      received += bytes.length;
    });
    for (let sequence = 1n; sequence <= 20n; sequence += 1n) {
      const bytes = toBinary(
        HeartbeatRequestSchema,
        create(HeartbeatRequestSchema, {
          sequence,
          beats: [{ agentId: "ada-1", status: sequence % 2n === 0n ? AgentStatus.IDLE : AgentStatus.BUSY }],
        }),
      );
      const header = Buffer.alloc(5);
      header.writeUInt32BE(bytes.length, 1);
      stream.write(Buffer.concat([header, bytes]));
    }
    await until("some are acknowledged", () => received > 100);
    stream.end();
    await new Promise((resolve) => stream.once("close", resolve));
    session.close();
    const beating = "harborforge.agents.v1.AgentService/Heartbeat";
    await until("the span of its end", () => collector.named(`${beating} end`)[0]);
    expect(collector.named(beating)).toHaveLength(1);
    expect(collector.named("renew-leases")).toEqual([]);
    // Only that of the user: the transitions of beats have no call to link to.
    expect(collector.named("commit group")).toHaveLength(1);
  });

  test("continues the trace of a program that uses the client library", async () => {
    await using stage = await openStage();
    await using database = await createTestDatabase();
    await using collector = await startOtlpReceiver();
    const service = await stage.serve({
      env: { DATABASE_URL: database.url, OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, ...OTEL },
    });
    const sdk = new NodeSDK({
      spanProcessors: [new tracing.SimpleSpanProcessor(new tracing.InMemorySpanExporter())],
      metricReaders: [],
      logRecordProcessors: [],
    });
    sdk.start();
    try {
      using clients = createServiceClients({ address: service.grpc });
      const calling = await trace.getTracer("calendar").startActiveSpan("plan a call", async (span) => {
        await clients.users.createUser({ username: "ada" });
        span.end();
        return span.spanContext();
      });
      const served = await until(
        "the span of the service",
        () => collector.named("harborforge.agents.v1.UserService/CreateUser")[0],
      );
      expect(served).toMatchObject({ traceId: calling.traceId, parentSpanId: calling.spanId });
    } finally {
      await sdk.shutdown();
    }
  });

  test("is off without its variables, loads no SDK, and sends nothing", async () => {
    await using stage = await openStage();
    await using database = await createTestDatabase();
    const loaded =
      'process.on("SIGUSR2", () => console.error("SDK", Object.keys(require("node:module")._cache).some((file) => file.includes("sdk-node"))))';
    const service = await stage.serve({
      env: {
        DATABASE_URL: database.url,
        OTEL_TRACES_EXPORTER: "none",
        OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9",
        NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(`import { createRequire } from "node:module"; const require = createRequire("/"); ${loaded}`)}`,
      },
    });
    const answer = await post(
      service,
      "UserService/CreateUser",
      { username: "ada" },
      { traceparent: newTrace().traceparent },
    );
    expect(answer.status).toBe(200);
    expect(answer.headers.get("traceresponse")).toBeNull();
    service.kill("SIGUSR2");
    await says(service, /SDK false/);
    expect(service.stderr).not.toContain("traceId");
  });

  test("logs that spans cannot be exported, without an address or a header", async () => {
    await using stage = await openStage();
    await using database = await createTestDatabase();
    const service = await stage.serve({
      env: {
        DATABASE_URL: database.url,
        OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9",
        OTEL_EXPORTER_OTLP_HEADERS: "authorization=Bearer%20hunter2",
        OTEL_EXPORTER_OTLP_TIMEOUT: "1000",
        ...OTEL,
      },
    });
    await post(service, "UserService/CreateUser", { username: "ada" });
    await says(service, /"event":"tracing.export_failed"/);
    expect(service.stderr).not.toMatch(/hunter2|127\.0\.0\.1:9"/);
  });
});
