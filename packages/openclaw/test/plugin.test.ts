import { once } from "node:events";
import { rm } from "node:fs/promises";
import { createServer } from "node:net";
import { agentView, createServiceClients } from "harborforge-agents-client";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { temporaryFolder } from "../../../test/support/owned-process.ts";
import { unique, useService } from "../../../test/support/service.ts";
import { until } from "../../../test/support/until.ts";
import { register } from "../src/plugin.ts";
import { configOf, createFakeGateway, type FakeGateway } from "./fake-gateway.ts";
import { recordsOf } from "./recorded.ts";

// The plugin from its sources against a fake gateway and a real service.

const service = useService();
const running: FakeGateway[] = [];
let clients: ReturnType<typeof createServiceClients>;

beforeAll(() => {
  clients = createServiceClients({ address: service().addresses.grpc });
});
afterAll(() => clients.close());
afterEach(async () => {
  for (const gateway of running.splice(0)) {
    gateway.hook("gateway_stop", {});
    await gateway.service.stop();
  }
});

function start(claw: string, config: object = {}, agents?: readonly string[]): FakeGateway {
  const gateway = createFakeGateway({ claw, address: service().addresses.grpc, ...config }, agents);
  running.push(gateway);
  gateway.service.start();
  return gateway;
}

async function create(agentId: string, clawIdentifier: string): Promise<void> {
  await clients.users.createUser({ username: agentId, agentId, clawIdentifier });
}

async function viewOf(agentId: string) {
  const { agent } = await clients.agents.getAgent({ key: { case: "agentId", value: agentId } });
  if (agent === undefined) throw new Error("no agent");
  return agentView(agent);
}

async function becomes(agentId: string, status: string): Promise<void> {
  await until(`${agentId} is ${status}`, async () => (await viewOf(agentId)).status === status);
}

const lifecycle = (phase: string, data: object = {}) => ({
  runId: "run-1",
  agentId: "main",
  sessionKey: "agent:main:main",
  stream: "lifecycle",
  data: { phase, ...data },
});

describe("the plugin", () => {
  it("reports a run as busy, then idle, and says goodbye when the gateway stops", async () => {
    const claw = unique("claw");
    await create(`${claw}/main`, claw);
    const gateway = start(claw);
    await until("beats", async () => (await viewOf(`${claw}/main`)).lastHeartbeat);
    gateway.hook("before_model_resolve", {}, { runId: "run-1", agentId: "main" });
    await becomes(`${claw}/main`, "busy");
    gateway.emit(lifecycle("end"));
    await becomes(`${claw}/main`, "idle");
    gateway.hook("gateway_stop", {});
    await gateway.service.stop();
    await becomes(`${claw}/main`, "offline");
  });

  it("replays a recorded gateway: an empty account is exhausted", async () => {
    const claw = unique("claw");
    await create(`${claw}/main`, claw);
    const gateway = start(claw);
    for (const record of recordsOf("an empty account")) {
      if (record.hook === undefined) gateway.emit(record.event);
      else gateway.hook(record.hook, record.event, record.context);
    }
    await becomes(`${claw}/main`, "exhausted");
    expect((await viewOf(`${claw}/main`)).exhaustion?.reason).toBe("billing");
    expect(gateway.status()).toMatchObject({
      agents: [{ gatewayId: "main", service: "exhausted", presence: "beating" }],
    });
  });

  it("keeps the lease and the runs when the gateway replaces the plugin alone", async () => {
    const claw = unique("claw");
    await create(`${claw}/main`, claw);
    const first = start(claw);
    const drain = new AbortController();
    first.hook("gateway_start", {}, { abortSignal: drain.signal });
    first.emit(lifecycle("start"));
    await becomes(`${claw}/main`, "busy");
    const { revision } = await viewOf(`${claw}/main`);
    await first.service.stop();
    const second = start(claw);
    await until("the second copy beats", () => JSON.stringify(second.status()).includes('"service":"busy"'));
    expect((await viewOf(`${claw}/main`)).revision).toBe(revision);
    second.emit(lifecycle("end"));
    await becomes(`${claw}/main`, "idle");
    drain.abort();
  });

  it("follows the configuration: agents are added and leave", async () => {
    const claw = unique("claw");
    for (const id of ["main", "bob"]) await create(`${claw}/${id}`, claw);
    const gateway = start(claw);
    gateway.config = configOf(["bob"]);
    await until("bob beats", async () => (await viewOf(`${claw}/bob`)).lastHeartbeat);
    await becomes(`${claw}/main`, "offline");
  });

  it("tells once which agents the service does not know, and how to create them", async () => {
    const claw = unique("claw");
    const gateway = start(claw, {}, ["main", "bob"]);
    const told = () => gateway.logged.filter((line) => line.startsWith("agents.unknown"));
    await until("the log line", () => told().length > 0);
    expect(told()).toEqual([
      expect.stringContaining(`harborforge-agents agents enrol --claw ${claw} --from openclaw.json`),
    ]);
    expect(told()[0]).toContain(`["${claw}/main","${claw}/bob"]`);
  });

  it("gives a service's claim a minute to become work, and confirms nothing", async () => {
    const claw = unique("claw");
    await create(`${claw}/main`, claw);
    const gateway = start(claw);
    await until("beats", async () => (await viewOf(`${claw}/main`)).lastHeartbeat);
    await clients.agents.updateAgentStatus({ agentId: `${claw}/main`, status: 2 });
    await until("the plugin knows of the claim", () =>
      JSON.stringify(gateway.status()).includes('"service":"on_call"'),
    );
    expect(gateway.status()).toMatchObject({ agents: [{ shown: "idle" }] });
    gateway.emit(lifecycle("start"));
    await becomes(`${claw}/main`, "busy");
  });

  it.each([
    [{}, "claw is missing"],
    [{ claw: "claw-1", address: "no address" }, "address"],
    [{ claw: "c".repeat(129) }, "claw"],
  ])("writes one line for the invalid settings %j, and reports nothing", (config, problem) => {
    const gateway = createFakeGateway(config);
    running.push(gateway);
    gateway.service.start();
    expect(gateway.logged).toEqual([expect.stringMatching(new RegExp(`^settings\\.invalid: .*${problem}`))]);
    expect(gateway.status()).toMatchObject({ connection: { state: "not_configured" } });
  });

  it("reports the other agents when the id of one is invalid, or belongs to two", async () => {
    const claw = unique("claw");
    await create(`${claw}/main`, claw);
    const agents = { bob: "x".repeat(129), eve: `${claw}/main` };
    const gateway = start(claw, { agents }, ["main", "bob", "eve"]);
    await until("beats", async () => (await viewOf(`${claw}/main`)).lastHeartbeat);
    expect(gateway.status()).toMatchObject({ agents: [{ gatewayId: "main" }] });
    expect(gateway.logged.filter((line) => line.startsWith("settings.invalid"))).toHaveLength(2);
  });

  it("stops within a second while the service is silent", async () => {
    await using undo = new AsyncDisposableStack();
    const server = createServer().listen(0, "127.0.0.1");
    undo.defer(() => void server.close());
    await once(server, "listening");
    const address = server.address();
    const port = typeof address === "object" ? address?.port : 0;
    const gateway = createFakeGateway({ claw: "claw-1", address: `127.0.0.1:${port}` });
    gateway.service.start();
    gateway.hook("gateway_stop", {});
    // The worker may take longer to end: the gateway does not wait for it.
    const ended = await Promise.race([
      gateway.service.stop().then(() => "stopped"),
      new Promise((resolve) => setTimeout(resolve, 20_000, "hung")),
    ]);
    expect(ended).toBe("stopped");
  });

  it.each([
    undefined,
    null,
    1,
    "x",
    {},
    { stream: "lifecycle" },
    { runId: 1, agentId: {}, stream: [], data: 7 },
  ])("lets no exception reach the gateway for the event %j", (event) => {
    const gateway = createFakeGateway({ claw: "claw-1", address: service().addresses.grpc });
    running.push(gateway);
    gateway.service.start();
    expect(() => {
      gateway.emit(event);
      for (const name of ["before_model_resolve", "llm_output", "model_call_ended", "gateway_start"])
        gateway.hook(name, event, event);
    }).not.toThrow();
  });

  it("registers with a gateway that lacks everything it can do without", () => {
    const { api, logged } = createFakeGateway({ claw: "claw-1" });
    const { registerCli: _cli, registerGatewayMethod: _method, ...older } = api;
    register(older);
    expect(logged).toEqual([]);
  });
});

it("packs into less than 600 kB", async () => {
  const { packPlugin } = await import("../../../scripts/openclaw-plugin.ts");
  const folder = await temporaryFolder("pack");
  try {
    const { stat } = await import("node:fs/promises");
    expect((await stat(await packPlugin(folder))).size).toBeLessThan(600_000);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
