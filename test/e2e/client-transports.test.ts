import type { Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { createGrpcWebTransport, createConnectTransport as createWebTransport } from "@connectrpc/connect-web";
import { createHeartbeatClient, createServiceClients, type WatchEvent } from "harborforge-agents-client";
import { createAgentCache, watchAgents } from "harborforge-agents-client/watch";
import { describe, expect, test } from "vitest";
import { createGrpcJsTransport } from "../support/grpc-js-transport.ts";
import { unique, useService } from "../support/service.ts";
import { until } from "../support/until.ts";

const service = useService({ watchMaxAgeMs: 1_000 });

async function createAgent(claw: string): Promise<string> {
  const agentId = unique("agent");
  using clients = createServiceClients({ address: service().addresses.grpc });
  await clients.users.createUser({ username: agentId, agentId, clawIdentifier: claw });
  return agentId;
}

describe("heartbeats", () => {
  test.each<[string, (addresses: { grpc: string; http: string }) => Transport]>([
    ["Connect over HTTP/2", ({ http }) => createConnectTransport({ baseUrl: `http://${http}`, httpVersion: "2" })],
    ["gRPC by Connect's library", ({ http }) => createGrpcTransport({ baseUrl: `http://${http}` })],
    ["grpc-js", ({ grpc }) => createGrpcJsTransport(grpc, 0)],
  ])("work by an external transport: %s", async (_, make) => {
    const agentId = await createAgent("claw-1");
    const transport = make(service().addresses);
    const client = createHeartbeatClient({ transport, claw: "claw-1" });
    expect(await client.agent(agentId).busy()).toBe("applied");
    await client.close();
    expect(client.agent(agentId).presence).toBe("left");
    if ("close" in transport && typeof transport.close === "function") transport.close();
  });
});

test("claim() takes an agent back from a process that still beats, in both directions", async () => {
  const [claw, agentId] = [unique("claw"), await createAgent("claw-1")];
  using clients = createServiceClients({ address: service().addresses.grpc });
  await clients.agents.moveAgent({ agentId, clawIdentifier: claw });
  await using one = createHeartbeatClient({ address: service().addresses.grpc, claw });
  await using other = createHeartbeatClient({ address: service().addresses.grpc, claw });
  expect(await one.agent(agentId).busy()).toBe("applied");
  expect(await other.agent(agentId).onCall()).toBe("applied");
  for (let round = 0; round < 3; round += 1) {
    for (const [loser, winner] of [[one, other] as const, [other, one] as const]) {
      await until("it is told", () => loser.agent(agentId).presence === "superseded");
      loser.agent(agentId).claim();
      expect(await loser.agent(agentId).idle()).toBe("applied");
      await until("the other is told", () => winner.agent(agentId).presence === "superseded");
    }
  }
});

describe("a watch by the transports of browsers", () => {
  test.each([
    ["Connect", createWebTransport],
    ["gRPC-Web", createGrpcWebTransport],
  ] as const)(
    "%s continues over the end of its streams, and keeps its cache up to date",
    async (_, make) => {
      const claw = unique("claw");
      const agentId = await createAgent(claw);
      const transport = make({ baseUrl: `http://${service().addresses.http}` });
      await using cache = createAgentCache({ transport, filter: { clawIdentifiers: [claw] } });
      await cache.ready;
      expect(cache.list().map((agent) => agent.agentId)).toEqual([agentId]);
      let interruptions = 0;
      cache.subscribe(({ kind }) => {
        if (kind === "interrupted") interruptions += 1;
      });
      const client = createHeartbeatClient({ address: service().addresses.grpc, claw });
      const agent = client.agent(agentId);
      // Streams end by age, after a second or so: several of them meanwhile.
      const deadline = performance.now() + 20_000;
      for (let word = 0; interruptions < 2 && performance.now() < deadline; word += 1) {
        await (word % 2 === 0 ? agent.busy() : agent.idle());
        await cache.waitFor(({ get }) => get(agentId)?.status === (word % 2 === 0 ? "busy" : "idle"), {
          signal: AbortSignal.timeout(20_000),
        });
      }
      expect(interruptions).toBeGreaterThanOrEqual(2);
      await client.close();
      await cache.waitFor(({ get }) => get(agentId)?.status === "offline", { signal: AbortSignal.timeout(20_000) });
    },
    60_000,
  );

  test("a filter that no agent passes any more empties the cache; waiting ends with its signal, or with the cache", async () => {
    const claw = unique("claw");
    const agentId = await createAgent(claw);
    const transport = createWebTransport({ baseUrl: `http://${service().addresses.http}` });
    const cache = createAgentCache({ transport, filter: { clawIdentifiers: [claw], statuses: ["idle"] } });
    await cache.ready;
    const client = createHeartbeatClient({ address: service().addresses.grpc, claw });
    await client.agent(agentId).busy();
    await cache.waitFor(({ list }) => list().length === 0, { signal: AbortSignal.timeout(20_000) });
    expect(cache.get(agentId)).toBeUndefined();
    const enough = AbortSignal.abort(new Error("enough"));
    await expect(cache.waitFor(() => false, { signal: enough })).rejects.toThrow("enough");
    await expect(
      cache.waitFor(() => {
        throw new Error("mine");
      }),
    ).rejects.toThrow("mine");
    const waiting = cache.waitFor(() => false);
    await cache.close();
    await expect(waiting).rejects.toMatchObject({ name: "AbortError" });
    await client.close();
  });

  test("restarts from a revision that is no longer kept, and reports it", async () => {
    const claw = unique("claw");
    const agentId = await createAgent(claw);
    const transport = createWebTransport({ baseUrl: `http://${service().addresses.http}` });
    const stop = new AbortController();
    const events: WatchEvent[] = [];
    // Beyond every revision of the service: as after a restore.
    for await (const event of watchAgents({
      transport,
      filter: { clawIdentifiers: [claw] },
      from: 2n ** 62n,
      signal: stop.signal,
    })) {
      events.push(event);
      if (event.kind === "snapshot") stop.abort();
    }
    expect(events).toMatchObject([
      { kind: "interrupted", error: { reason: "REVISION_IN_FUTURE" } },
      { kind: "snapshot", because: "history_lost", agents: [{ agentId }] },
    ]);
  });
});
