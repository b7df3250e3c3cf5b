import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { expect, test } from "vitest";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { Health, HealthCheckResponse_ServingStatus as Status } from "../../gen/health/v1/health_pb.ts";
import { newAgent } from "../support/contract-steps.ts";
import { HeartbeatStream } from "../support/contract-streams.ts";
import { GRPC_JS, openClients } from "../support/protocol-clients.ts";
import { eventually } from "../support/rpc-listeners.ts";
import { startService } from "../support/service.ts";

test("a replica whose stop is announced says that it is not ready, and serves everything", async () => {
  await using service = await startService();
  const { grpc, http } = service.addresses;
  using clients = openClients(GRPC_JS, service.addresses);
  const { agentId } = await newAgent(clients);
  const statuses: Status[] = [];
  const watching = (async () => {
    for await (const { status } of clients.health.watch({ service: "" }, { timeoutMs: 0 })) statuses.push(status);
  })().catch(() => undefined);
  await eventually("health is watched", () => statuses.length === 1);

  service.server.announceStop();
  const ready = await fetch(`http://${http}/readyz`);
  expect([ready.status, await ready.text()]).toEqual([503, "not ready: draining\n"]);
  await eventually("watchers of health are told", () => statuses.length === 2);
  expect(statuses).toEqual([Status.SERVING, Status.NOT_SERVING]);

  // New connections, calls, and heartbeats.
  const overGrpc = createClient(AgentService, createGrpcTransport({ baseUrl: `http://${grpc}` }));
  expect((await overGrpc.getAgent({ key: { case: "agentId", value: agentId } })).agent?.agentId).toBe(agentId);
  const overConnect = createConnectTransport({ baseUrl: `http://${http}`, httpVersion: "1.1" });
  expect((await createClient(Health, overConnect).check({})).status).toBe(Status.NOT_SERVING);
  const { results } = await createClient(AgentService, overConnect).sendHeartbeat({ beats: [{ agentId }] });
  expect(results[0]?.error).toBeUndefined();
  await using stream = new HeartbeatStream({ agents: overGrpc });
  const [result] = await stream.beat({ beats: [{ agentId }] });
  expect([result?.agentId, result?.error]).toEqual([agentId, undefined]);
  expect(stream.messages.some(({ draining }) => draining !== undefined)).toBe(false);

  await service.server.stop(0);
  await watching;
  await expect(fetch(`http://${http}/readyz`)).rejects.toThrow();
});
