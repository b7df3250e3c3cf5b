import { expect } from "vitest";
import { AgentStatus, TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import type { Addresses } from "../../src/server.ts";
import { getAgent, newAgent, rateLimit, setStatus } from "./contract-steps.ts";
import { HeartbeatStream, Watch } from "./contract-streams.ts";
import { GRPC_JS, openClients } from "./protocol-clients.ts";
import { unique } from "./service.ts";
import { until } from "./until.ts";

const { IDLE, BUSY, EXHAUSTED } = AgentStatus;

/**
 * One agent through the main parts of the contract: create, beat, change, watch, list, exhaustion and recovery, delete.
 * Names, instants and the order of transitions have to be right.
 */
export async function tourContract(addresses: Addresses): Promise<void> {
  await using undo = new AsyncDisposableStack();
  const clients = undo.use(openClients(GRPC_JS, addresses));
  const { agents, users } = clients;
  const before = Date.now() / 1_000;
  const claw = `${unique("claw")} \\ 'ü' 😀`;
  const { agent, agentId, user } = await newAgent(clients, claw);
  expect(agent).toMatchObject({ clawIdentifier: claw, status: IDLE });
  // The clocks of this machine and of the database are the same.
  expect(Math.abs(Number(agent.createdAt?.seconds) - before)).toBeLessThan(60);
  const watch = undo.use(new Watch(clients, { filter: { clawIdentifiers: [claw] } }));
  await watch.untilComplete();
  const heartbeat = undo.use(new HeartbeatStream(clients));
  await heartbeat.beat({ beats: [{ agentId }] });
  await heartbeat.beat({ beats: [{ agentId, status: BUSY }] });
  expect(Number((await getAgent(clients, agentId)).leaseExpiresAt?.seconds)).toBeGreaterThan(before);
  await setStatus(clients, agentId, IDLE);
  const request = { agentId, status: EXHAUSTED, exhaustion: rateLimit(1n), requestId: unique("request") };
  const exhausted = await agents.updateAgentStatus(request);
  expect(await agents.updateAgentStatus(request)).toEqual(exhausted);
  await until("the agent recovers", async () => (await getAgent(clients, agentId)).status === IDLE);
  await users.updateUser({ id: user.id, displayName: "O'Brien \\ ☃" });
  expect((await users.getUser({ key: { case: "id", value: user.id } })).user?.displayName).toBe("O'Brien \\ ☃");
  const listed = await agents.listAgents({ filter: { clawIdentifiers: [claw], statuses: [IDLE] } });
  expect(listed.agents.map((one) => one.agentId)).toEqual([agentId]);
  await agents.deleteAgent({ agentId });
  const causes = [
    TransitionCause.REPORT,
    TransitionCause.SERVICE,
    TransitionCause.SERVICE,
    TransitionCause.RECOVERY,
    TransitionCause.DELETED,
  ];
  await watch.until("the watch has every change", () => watch.changes.length === causes.length);
  expect(watch.changes.map(({ transition }) => transition?.cause)).toEqual(causes);
  const { transitions } = await agents.listAgentTransitions({ agentId });
  expect(transitions.map(({ cause }) => cause)).toEqual([TransitionCause.CREATED, ...causes]);
}
