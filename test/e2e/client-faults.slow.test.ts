import {
  type AgentHandle,
  createAgentCache,
  createHeartbeatClient,
  createServiceClients,
} from "harborforge-agents-client";
import { expect, test } from "vitest";
import { statusName } from "../../common/contract/enum-values.ts";
import { TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { openStage, type Serving, type Stage } from "../support/program.ts";
import { until } from "../support/until.ts";

const AGENTS = 12;
/** A lease of nine seconds: a replica needs some of them to restart on a busy machine. */
const INTERVAL = "3s";
const PATIENCE_MS = 40_000;

/** One replica after another, always at the same address. */
async function openSeat(stage: Stage, databaseUrl: string) {
  let serving: Serving | undefined;
  const proxy = await FaultProxy.open(() => (serving === undefined ? [] : [Number(new URL(serving.grpc).port)]));
  return {
    proxy,
    async serve() {
      const env = {
        DATABASE_URL: databaseUrl,
        HARBORFORGE_HEARTBEAT_INTERVAL: INTERVAL,
        HARBORFORGE_DRAIN_GRACE: "2s",
      };
      serving = await stage.serve({ env });
    },
    async end(signal: NodeJS.Signals) {
      const ending = serving;
      ending?.kill(signal);
      await ending?.ended;
      serving = undefined;
    },
  };
}

/**
 * An agent that works and rests in turn, and records its acknowledged reports. It is in `waiting` while a
 * report is not.
 */
async function work(agent: AgentHandle, over: AbortSignal, waiting: Set<string>): Promise<string[]> {
  const acknowledged: string[] = [];
  while (!over.aborted) {
    const word = acknowledged.length % 2 === 0 ? "busy" : "idle";
    waiting.add(agent.agentId);
    expect(await (word === "busy" ? agent.busy() : agent.idle())).toBe("applied");
    waiting.delete(agent.agentId);
    acknowledged.push(word);
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
  return acknowledged;
}

test("a client whose servers are cut off, stalled, drained, killed and moved keeps its agents and loses no acknowledged report", {
  timeout: 240_000,
}, async () => {
  await using stage = await openStage();
  await using database = await createTestDatabase();
  const seats = [await openSeat(stage, database.url), await openSeat(stage, database.url)];
  await using undo = new AsyncDisposableStack();
  for (const { proxy } of seats) undo.use(proxy);
  await Promise.all(seats.map((seat) => seat.serve()));
  const addresses = seats.map(({ proxy }) => proxy.address);
  using service = createServiceClients({ addresses });
  const agentIds = Array.from({ length: AGENTS }, (_, index) => `agent-${index}`);
  for (const agentId of agentIds) {
    await service.users.createUser({ username: agentId, agentId, clawIdentifier: "claw-1" });
  }

  await using cache = createAgentCache({ addresses });
  const client = createHeartbeatClient({ addresses, claw: "claw-1" });
  undo.defer(() => client.close({ withinMs: 0 }));
  const connected: number[] = [];
  client.on("connection", ({ state }) => {
    if (state === "connected") connected.push(performance.now());
  });
  const over = new AbortController();
  const agents = agentIds.map((agentId) => client.agent(agentId));
  const refusals: string[] = [];
  for (const agent of agents)
    for (const name of ["refused", "superseded"] as const) {
      agent.on(name, ({ agentId, reason }) => refusals.push(`${agentId} ${reason}`));
    }
  const waiting = new Set<string>();
  const stories = Promise.all(agents.map((agent) => work(agent, over.signal, waiting)));
  /** Until every agent has a new acknowledged report. */
  const goesOn = async (what: string): Promise<void> => {
    const since = agents.map(({ agentId }) => cache.get(agentId)?.revision ?? 0n);
    const moved = () =>
      agents.every(({ agentId }, index) => (cache.get(agentId)?.revision ?? 0n) > (since[index] ?? 0n));
    await until(`every agent goes on after: ${what}`, moved, PATIENCE_MS);
  };
  await cache.ready;
  await goesOn("the beginning");

  for (const { proxy } of seats) {
    proxy.drop();
    await goesOn("connections are reset");
    proxy.stall();
    await goesOn("a connection carries nothing any more");
    proxy.resume();
  }
  for (const seat of seats) {
    await seat.end("SIGTERM");
    await goesOn("a replica drains and ends");
    await seat.serve();
  }
  for (const seat of seats) {
    await seat.end("SIGKILL");
    await goesOn("a replica is killed");
    // On another port: the service has moved.
    await seat.serve();
  }
  for (const { proxy } of seats) proxy.swallow();
  await until("every agent has said something that nobody hears", () => waiting.size === AGENTS, PATIENCE_MS);
  for (const { proxy } of seats) proxy.mend();
  await goesOn("nothing was carried for a while");
  over.abort();
  const acknowledged = await stories;
  await client.close();

  for (const [index, agentId] of agentIds.entries()) {
    const { transitions } = await service.agents.listAgentTransitions({ agentId, pageSize: 1_000 });
    const reported = transitions.filter(({ cause }) => cause === TransitionCause.REPORT);
    expect(
      reported.map(({ toStatus }) => statusName(toStatus)),
      agentId,
    ).toEqual(acknowledged[index]);
    const others = transitions.filter(({ cause }) => cause !== TransitionCause.REPORT).map(({ cause }) => cause);
    expect(others, agentId).toEqual([TransitionCause.CREATED, TransitionCause.GOODBYE]);
  }
  expect(refusals).toEqual([]);
  expect(connected.length).toBeGreaterThan(4);
  // The cache equals the log, whatever happened to its watch meanwhile.
  await cache.waitFor(({ list }) => list(({ status }) => status === "offline").length === AGENTS, {
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
});

const SLEEPER = `
import { createHeartbeatClient } from "${new URL("../../packages/client/src/index.ts", import.meta.url)}";
const claw = createHeartbeatClient({ address: process.env.ADDRESS, claw: "claw-1" });
await claw.agent("sleeper").busy();
console.log("beats");
`;

test("a client whose machine slept beyond its lease returns at once on waking, with its last reports", {
  timeout: 120_000,
}, async () => {
  await using stage = await openStage();
  await using database = await createTestDatabase();
  const env = { DATABASE_URL: database.url, HARBORFORGE_HEARTBEAT_INTERVAL: "1s" };
  const serving = await stage.serve({ env });
  const ADDRESS = new URL(serving.grpc).host;
  using service = createServiceClients({ address: ADDRESS });
  await service.users.createUser({ username: "sleeper", agentId: "sleeper", clawIdentifier: "claw-1" });
  await using cache = createAgentCache({ address: ADDRESS });
  const becomes = (status: string) =>
    cache.waitFor(({ get }) => get("sleeper")?.status === status, { signal: AbortSignal.timeout(PATIENCE_MS) });
  const sleeper = stage.run(process.execPath, ["--input-type=module", "--eval", SLEEPER], { env: { ADDRESS } });
  await becomes("busy");
  sleeper.kill("SIGSTOP");
  await becomes("offline");
  sleeper.kill("SIGCONT");
  await becomes("busy");
  expect(sleeper.stderr).toBe("");
});
