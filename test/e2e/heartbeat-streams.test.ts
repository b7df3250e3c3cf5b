import { Code } from "@connectrpc/connect";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { ErrorReason } from "../../gen/harborforge/agents/v1/error_reason_pb.ts";
import { Server } from "../../src/server.ts";
import { HeartbeatClient, STREAM_ENDS } from "../support/heartbeat-client.ts";
import { openClients, PROTOCOLS, useClients } from "../support/protocol-clients.ts";
import { INTERVAL_MS, unique, useService } from "../support/service.ts";
import { createAgent, SessionWitness } from "../support/session-witness.ts";
import { until } from "../support/until.ts";

/** Streams of other clients are the same behind the same listener. */
const NAMES = new Set(["grpc-js at the gRPC listener", "Connect binary over HTTP/2", "gRPC at the Connect listener"]);

const service = useService();
const witness = new SessionWitness(service);
/** Another replica, on the same database. */
let replica: Server;

beforeAll(async () => {
  replica = await Server.start({
    databaseUrl: service().databaseUrl,
    grpcAddress: "127.0.0.1:0",
    httpAddress: "127.0.0.1:0",
    pace: { shortestIntervalMs: INTERVAL_MS, heartbeatsPerSecond: 10_000 },
    firstLeaseMs: 60_000,
    log: pino({ level: "silent" }),
  });
});
afterAll(() => replica?.stop(0));

describe.each(PROTOCOLS.filter(({ name }) => NAMES.has(name)))("heartbeats by $name", (protocol) => {
  const clients = useClients(protocol, service);
  const stream = (opening = {}) => new HeartbeatClient(clients.agents, opening);

  test("get a first response at once, and are acknowledged when they are applied", async () => {
    const agentId = await createAgent(clients, "greeted");
    await using client = stream();
    client.send();
    const [hello] = await until("the hello", () => client.responses.length > 0 && client.responses);
    expect(hello).toMatchObject({ acknowledgedSequence: 0n, limits: { maxBeats: 1_000, maxAgents: 10_000 } });
    expect(hello?.leaseTtl).toMatchObject({ seconds: 30n, nanos: 0 });
    const results = await client.say({ agentId, status: AgentStatus.BUSY }, { agentId: "nobody" }, { agentId });
    expect(results.toSorted((a, b) => a.beatIndex - b.beatIndex)).toMatchObject([
      { agentId, status: AgentStatus.BUSY, beatIndex: 0 },
      { error: { code: Code.NotFound, reason: ErrorReason.AGENT_NOT_FOUND }, beatIndex: 1 },
    ]);
    const { agent } = await clients.agents.getAgent({ key: { case: "agentId", value: agentId } });
    expect(agent).toMatchObject({ status: AgentStatus.BUSY });
  });

  test.each([
    ["the client cancels", STREAM_ENDS.cancel],
    ["the client half-closes", STREAM_ENDS.halfClose],
    ["the client breaks the rules", STREAM_ENDS.breakRules],
  ])("that end because %s are no goodbye: the agent may come back before its lease ends", async (_, finish) => {
    const agentId = await createAgent(clients, "ends");
    await using first = stream();
    await first.say({ agentId, status: AgentStatus.BUSY });
    await finish(first);
    await witness.letGo(agentId);

    // On the other replica, and then here again.
    using elsewhere = openClients(protocol, replica.addresses);
    await using second = new HeartbeatClient(elsewhere.agents);
    expect(await second.say({ agentId })).toMatchObject([{ status: AgentStatus.BUSY }]);
    second.cancel();
    await witness.letGo(agentId);
    await using third = stream();
    expect(await third.say({ agentId })).toMatchObject([{ status: AgentStatus.BUSY }]);
    expect(await witness.storyOf(agentId)).toEqual(["report: busy"]);
  });

  test("are superseded at once by another stream; the superseded one is notified and may take the agent back", async () => {
    const agentId = await createAgent(clients, "taken");
    await using loser = stream();
    await loser.say({ agentId, status: AgentStatus.BUSY });
    await using winner = stream();
    expect(await winner.say({ agentId })).toMatchObject([{ status: AgentStatus.BUSY }]);
    const told = await until("the loser is told", () => loser.results.find(({ error }) => error !== undefined));
    expect(told).toMatchObject({ agentId, sequence: 0n, error: { reason: ErrorReason.SESSION_SUPERSEDED } });
    expect(await loser.say({ agentId, status: AgentStatus.IDLE })).toMatchObject([
      { error: { code: Code.Aborted, reason: ErrorReason.SESSION_SUPERSEDED } },
    ]);
    winner.end();
    expect(await winner.untilEnded()).toBe("end");
    await witness.letGo(agentId);
    expect(await loser.say({ agentId, status: AgentStatus.IDLE })).toMatchObject([{ status: AgentStatus.IDLE }]);
  });

  test("are superseded across replicas; of one process the higher generation wins, in either order", async () => {
    const agentId = await createAgent(clients, "generations");
    using elsewhere = openClients(protocol, replica.addresses);
    const instanceId = unique("claw process");
    await using newer = new HeartbeatClient(elsewhere.agents, { instanceId, generation: 2n });
    await newer.say({ agentId, status: AgentStatus.ON_CALL });
    await using older = stream({ instanceId, generation: 1n });
    expect(await older.say({ agentId, status: AgentStatus.BUSY })).toMatchObject([
      { error: { reason: ErrorReason.SESSION_SUPERSEDED } },
    ]);
    await using process = stream({ instanceId: unique("another process") });
    expect(await process.say({ agentId })).toMatchObject([{ status: AgentStatus.ON_CALL }]);
    expect(await newer.say({ agentId })).toMatchObject([{ error: { reason: ErrorReason.SESSION_SUPERSEDED } }]);
  });

  test("with a goodbye put the agent offline at once, and no other agent", async () => {
    const [leaving, staying] = [await createAgent(clients, "leaves"), await createAgent(clients, "stays")];
    await clients.agents.updateAgentStatus({ agentId: leaving, status: AgentStatus.ON_CALL });
    await using client = stream({ clawIdentifier: "claw-1" });
    const results = await client.say({ agentId: leaving, leaving: true }, { agentId: staying });
    expect(results.find(({ agentId }) => agentId === leaving)).toMatchObject({ status: AgentStatus.OFFLINE });
    expect(await witness.holdOf(leaving)).toEqual({ held: false, lease: null });
    expect(await witness.holdOf(staying)).toMatchObject({ held: true });
    expect(await witness.storyOf(leaving)).toEqual(["service: on_call", "goodbye: offline"]);
  });

  test("get a service's change pushed, also through another replica", async () => {
    const agentId = await createAgent(clients, "called");
    await using client = stream({ clawIdentifier: "claw-1" });
    await client.say({ agentId, status: AgentStatus.IDLE });
    using elsewhere = openClients(protocol, replica.addresses);
    const { agent } = await elsewhere.agents.updateAgentStatus({ agentId, status: AgentStatus.ON_CALL });
    const told = await until("it is told", () => client.results.find(({ status }) => status === AgentStatus.ON_CALL));
    expect(told).toMatchObject({ sequence: 0n, revision: agent?.revision });
    expect(await client.say({ agentId, status: AgentStatus.IDLE })).toMatchObject([
      { status: AgentStatus.ON_CALL, error: { reason: ErrorReason.REPORT_OUTDATED } },
    ]);
    await elsewhere.agents.moveAgent({ agentId, clawIdentifier: "claw-2" });
    expect(await client.say({ agentId })).toMatchObject([{ error: { reason: ErrorReason.WRONG_CLAW } }]);
  });
});
