import { beforeAll, describe, expect, test } from "vitest";
import type { MetricDefinition } from "../../src/telemetry/metrics/metric-definition.ts";
import { METRICS } from "../../src/telemetry/metrics/metric-table.ts";
import { CREDENTIALS, openMint } from "../support/access.ts";
import { MetricPage } from "../support/metric-page.ts";
import { grpcClient, rawUnary } from "../support/rpc-clients.ts";
import { unique, useService } from "../support/service.ts";
import { until } from "../support/until.ts";

const service = useService({ access: CREDENTIALS });
let token = "";

beforeAll(async () => {
  await using mint = openMint(service().databaseUrl);
  token = (await mint.issue({ role: "admin" })).secret;
});

const read = () => MetricPage.at(service().addresses.http, { authorization: `Bearer ${token}` });

async function call(method: string, request: object, authorization = `Bearer ${token}`): Promise<number> {
  const answer = await fetch(`http://${service().addresses.http}/harborforge.agents.v1.${method}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...(authorization === "" ? {} : { authorization }) },
    body: JSON.stringify(request),
  });
  await answer.arrayBuffer();
  return answer.status;
}

const GET_AGENT = "harborforge.agents.v1.AgentService/GetAgent";

describe("a replica", () => {
  test("serves every metric of the table, and those of its process", async () => {
    await until("the fleet is counted and the log measured", async () => {
      const page = await read();
      return (
        page.get("harborforge_fleet_claws", { state: "online" }) === 0 && page.get("harborforge_log_transitions") === 0
      );
    });
    const { names } = await read();
    const missing = Object.entries<MetricDefinition>(METRICS)
      .map(([name, { type }]) => (type === "histogram" ? `${name}_count` : name))
      .filter((name) => !names.has(name));
    // The service has no TLS, and no transition yet.
    expect(missing).toEqual([
      "harborforge_tls_certificate_expiry_timestamp_seconds",
      "harborforge_log_oldest_timestamp_seconds",
    ]);
    for (const name of ["process_cpu_seconds_total", "nodejs_eventloop_lag_p99_seconds"]) expect(names).toContain(name);
    // It has no series before the first collection.
    const answer = await fetch(`http://${service().addresses.http}/metrics`, {
      headers: { authorization: `Bearer ${token}` },
    });
    expect(await answer.text()).toContain("# TYPE nodejs_gc_duration_seconds histogram");
  });

  test("says that it is ready, that its database is up, and which release it is", async () => {
    const page = await read();
    expect(page.get("harborforge_ready")).toBe(1);
    expect(page.get("harborforge_database_up")).toBe(1);
    expect(page.get("harborforge_schema_version")).toBeGreaterThanOrEqual(8);
    expect(page.get("harborforge_build_info", { version: "unknown", commit: "unknown", node: process.version })).toBe(
      1,
    );
    const now = Date.now() / 1_000;
    expect(Math.abs(now - (page.get("harborforge_log_read_timestamp_seconds") ?? 0))).toBeLessThan(60);
  });
});

describe("calls", () => {
  test("are timed by method, code and listener", async () => {
    expect(await call("AgentService/GetAgent", { agentId: unique("none") })).toBe(404);
    const client = grpcClient(service().addresses.grpc);
    await rawUnary(client, `/${GET_AGENT}`, new Uint8Array()).catch(() => undefined);
    client.close();
    const page = await read();
    const timed = (code: string, listener: string) =>
      page.get("harborforge_rpc_server_duration_seconds_count", { method: GET_AGENT, code, listener });
    expect(timed("NOT_FOUND", "connect")).toBe(1);
    expect(timed("UNAUTHENTICATED", "grpc")).toBe(1);
    expect(timed("OK", "grpc")).toBe(0);
    expect(page.get("harborforge_rpc_calls_total", { method: GET_AGENT, code: "NOT_FOUND" })).toBe(1);
    // Under its former name, too.
    expect(page.get("harborforge_rpc_unary_seconds_count", { method: GET_AGENT })).toBe(2);
  });

  test("that open a stream are timed until the first message, and counted as open", async () => {
    const method = "harborforge.agents.v1.AgentService/WatchAgents";
    const ending = new AbortController();
    const body = JSON.stringify({});
    const frame = Buffer.concat([Buffer.from([0, 0, 0, 0, body.length]), Buffer.from(body)]);
    const answer = await fetch(`http://${service().addresses.http}/${method}`, {
      method: "POST",
      headers: { "content-type": "application/connect+json", authorization: `Bearer ${token}` },
      body: frame,
      signal: ending.signal,
    });
    await answer.body?.getReader().read();
    const page = await read();
    expect(page.get("harborforge_rpc_open_streams", { method })).toBe(1);
    expect(page.get("harborforge_rpc_server_duration_seconds_count", { method, code: "OK", listener: "connect" })).toBe(
      1,
    );
    expect(page.get("harborforge_rpc_calls_total", { method, code: "OK" })).toBe(0);
    ending.abort();
    await until("it has ended", async () => (await read()).get("harborforge_rpc_open_streams", { method }) === 0);
    // Its first message was in time: its end is no slow response.
    expect(
      (await read()).get("harborforge_rpc_server_duration_seconds_count", {
        method,
        code: "CANCELED",
        listener: "connect",
      }),
    ).toBeUndefined();
  });

  test("with a missing, malformed or invalid credential are counted by the kind of the credential", async () => {
    const before = await read();
    const request = { agentId: "agent-1" };
    for (const authorization of ["", "Basic abc", "Bearer hf_wrong_secret", "Bearer a.b.c"])
      expect(await call("AgentService/GetAgent", request, authorization)).toBe(401);
    const after = await read();
    const counted = (kind: string) =>
      (after.get("harborforge_authentication_failures_total", { kind }) ?? 0) -
      (before.get("harborforge_authentication_failures_total", { kind }) ?? 0);
    expect(["missing", "malformed", "api_token", "jwt", "certificate"].map(counted)).toEqual([1, 1, 1, 1, 0]);
  });
});

describe("the fleet", () => {
  test("is counted by status, claw and exhaustion", async () => {
    const names = ["one", "two", "three"].map(unique);
    for (const [place, name] of names.entries()) {
      const request = { username: name, agentId: name, clawIdentifier: `claw-${Math.min(place, 1)}` };
      expect(await call("UserService/CreateUser", request)).toBe(200);
    }
    const [, two, three] = names;
    const exhaustion = { reason: "EXHAUST_REASON_BILLING", retryAfter: "600s" };
    expect(
      await call("AgentService/UpdateAgentStatus", { agentId: two, status: "AGENT_STATUS_EXHAUSTED", exhaustion }),
    ).toBe(200);
    expect(await call("AgentService/UpdateAgentStatus", { agentId: three, status: "AGENT_STATUS_OFFLINE" })).toBe(200);
    const page = await until("they are counted", async () => {
      const now = await read();
      return now.get("harborforge_fleet_agents", { status: "offline" }) === 1 && now;
    });
    expect(page.get("harborforge_fleet_agents", { status: "idle" })).toBe(1);
    expect(page.get("harborforge_fleet_agents", { status: "exhausted" })).toBe(1);
    expect(page.get("harborforge_exhausted_agents", { reason: "billing" })).toBe(1);
    expect(page.get("harborforge_fleet_claws", { state: "online" })).toBe(2);
  });
});
