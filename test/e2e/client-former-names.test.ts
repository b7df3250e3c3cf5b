import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { describe, expect, test } from "vitest";
import {
  CallError,
  createAgentCache,
  createHeartbeatClient,
  createServiceClients,
  ReportError,
  watchAgents,
} from "../../src/client/index.ts";
import { createAgentCache as createBrowserCache } from "../../src/client/watch.ts";
import { checkout } from "../support/program.ts";
import { unique, useService } from "../support/service.ts";

const service = useService();

/** Microseconds of an instant of this test. */
function expectMicros(instant: unknown): void {
  expect(instant).toEqual(expect.any(Number));
  expect(Math.abs(Number(instant) / 1_000 - Date.now())).toBeLessThan(600_000);
}

async function createAgent(): Promise<string> {
  const agentId = unique("former");
  using clients = createServiceClients({ address: service().addresses.grpc });
  await clients.users.createUser({ username: agentId, agentId, clawIdentifier: "claw-1" });
  return agentId;
}

const rejected = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => expect.unreachable("it was not rejected"),
    (error: unknown) => error,
  );

/** The names that an entry exports, types included. */
async function exportsOf(file: string): Promise<string[]> {
  const code = await readFile(join(checkout, file), "utf8");
  const lists = [...code.matchAll(/^export (?:type )?\{([^}]+)\}/gm)].flatMap(([, names = ""]) => names.split(","));
  const named = lists
    .map((name) => name.replace(/^\s*(?:type )?(?:\w+ as )?/, "").trim())
    .filter((name) => name !== "");
  const declared = [...code.matchAll(/^export (?:type|function|const|interface) (\w+)/gm)].map(([, name = ""]) => name);
  return [...named, ...declared];
}

test.each(["src/client/index.ts", "src/client/watch.ts"])("the guide names each export of %s", async (file) => {
  const guide = await readFile(join(checkout, "docs/migrating.md"), "utf8");
  const names = await exportsOf(file);
  expect(names).toEqual(expect.arrayContaining(["AgentView", "CallError", "watchAgents", "WatchOptions"]));
  expect(names.filter((name) => !new RegExp(`\\b${name}\\b`).test(guide))).toEqual([]);
});

describe("a program of version 0.1, by the former name of the library", () => {
  test("gets the errors of Connect from calls", async () => {
    using clients = createServiceClients({ address: service().addresses.grpc });
    const error = await rejected(clients.agents.getAgent({ key: { case: "agentId", value: "nobody" } }));
    expect(error).toBeInstanceOf(ConnectError);
    expect(ConnectError.from(error).code).toBe(Code.NotFound);
  });

  test("gets instants in microseconds from watches and caches", async () => {
    const { grpc, http } = service().addresses;
    const agentId = await createAgent();
    const filter = { agentIds: [agentId] };
    const claw = createHeartbeatClient({ address: grpc, claw: "claw-1" });
    await claw.agent(agentId).exhausted({ reason: "rate_limit", retryAfterMs: 60_000 });
    for await (const event of watchAgents({ address: grpc, filter })) {
      if (event.kind !== "snapshot") continue;
      const [agent] = event.agents;
      expectMicros(agent?.createdAt);
      expectMicros(agent?.statusChangedAt);
      expectMicros(agent?.exhaustion?.recoveryAt);
      break;
    }
    const transport = createConnectTransport({ baseUrl: `http://${http}`, httpVersion: "1.1" });
    for (const cache of [createAgentCache({ address: grpc, filter }), createBrowserCache({ transport, filter })]) {
      await cache.ready;
      expectMicros(cache.get(agentId)?.statusChangedAt);
      const changed = new Promise<unknown>((resolve) => {
        cache.subscribe((event) => event.kind === "changes" && resolve(event.changes[0]?.transition.occurredAt));
      });
      await (cache.get(agentId)?.status === "exhausted" ? claw.agent(agentId).busy() : claw.agent(agentId).idle());
      expectMicros(await changed);
      await cache.close();
    }
    await claw.close();
  });

  test("gets its handles, events and errors as they were", async () => {
    const agentId = await createAgent();
    const address = service().addresses.grpc;
    const claw = createHeartbeatClient({ address, claw: "claw-1" });
    const agent = claw.agent(agentId);
    expect(claw.agent(agentId)).toBe(agent);
    const events: unknown[] = [];
    agent.on("status", ({ status, exhaustion }) => events.push([status, typeof exhaustion?.recoveryAt]));
    expect(await agent.busy()).toBe("applied");
    const exhausted = new Promise<void>((resolve) => {
      agent.on("status", ({ status }) => status === "exhausted" && resolve());
    });
    using clients = createServiceClients({ address });
    await clients.agents.updateAgentStatus({
      agentId,
      status: 4,
      exhaustion: { reason: 1, recovery: { case: "retryAfter", value: { seconds: 60n } } },
    });
    await exhausted;
    expect(events).toContainEqual(["exhausted", "number"]);
    expectMicros(agent.exhaustion?.recoveryAt);
    expect(await rejected(agent.exhausted({ reason: "billing", retryAfterMs: Number.NaN }))).toBeInstanceOf(RangeError);

    const stranger = claw.agent(unique("nobody"));
    const refusal = new Promise<ReportError>((resolve) => stranger.on("refused", resolve));
    const error = await rejected(stranger.busy());
    expect(error).toBeInstanceOf(ReportError);
    expect(error).not.toBeInstanceOf(CallError);
    expect(error).toMatchObject({ name: "ReportError", reason: "AGENT_NOT_FOUND", agentId: stranger.agentId });
    expect(await refusal).toBeInstanceOf(ReportError);
    expect([stranger.presence, agent.presence]).toEqual(["refused", "beating"]);
    await claw.close();
    expect(await rejected(agent.idle())).toMatchObject({ name: "ReportError", reason: "CLIENT_CLOSED" });
  });

  test("waits without a limit for a service that is not reached", async () => {
    const claw = createHeartbeatClient({ address: "127.0.0.1:1", claw: "claw-1" });
    const cache = createAgentCache({ address: "127.0.0.1:1" });
    const report = rejected(claw.agent("a").busy());
    const waiting = rejected(cache.ready);
    const tries = new Promise<void>((resolve) => {
      let count = 0;
      claw.on("connection", () => {
        count += 1;
        if (count > 2) resolve();
      });
    });
    await tries;
    await claw.close({ withinMs: 0 });
    await cache.close();
    expect(await report).toMatchObject({ reason: "CLIENT_CLOSED" });
    expect(await waiting).toMatchObject({ name: "AbortError" });
  });
});
