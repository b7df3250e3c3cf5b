import { Code } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { HealthCheckResponse_ServingStatus as ServingStatus } from "../../gen/health/v1/health_pb.ts";
import { getAgent, newAgent, present, setStatus } from "../support/contract-steps.ts";
import { HeartbeatStream, StreamReader, Watch } from "../support/contract-streams.ts";
import { DatabaseProxy } from "../support/gate-proxy.ts";
import { openClients, PROTOCOLS } from "../support/protocol-clients.ts";
import { failure } from "../support/rpc-clients.ts";
import { type RunningService, startService, unique } from "../support/service.ts";

const { BUSY, ON_CALL } = AgentStatus;
const AWAY = {
  code: Code.Unavailable,
  reason: "DATABASE_UNAVAILABLE",
  domain: "harborforge.agents",
  retryMs: expect.any(Number),
};

interface CutOff extends AsyncDisposable {
  readonly service: RunningService;
  readonly proxy: DatabaseProxy;
}

/** A service whose path to its database can be cut. */
async function startBehindProxy(): Promise<CutOff> {
  await using undo = new AsyncDisposableStack();
  const proxies: DatabaseProxy[] = [];
  const via = async (url: string): Promise<string> => {
    const proxy = undo.use(await DatabaseProxy.open(url));
    proxies.push(proxy);
    return proxy.url;
  };
  const service = undo.use(await startService({ via }));
  const everything = undo.move();
  return { service, proxy: present(proxies[0]), [Symbol.asyncDispose]: () => everything.disposeAsync() };
}

test("without the database every protocol gets an error, streams stay open, and all continue when it returns", async () => {
  await using undo = new AsyncDisposableStack();
  const { service, proxy } = undo.use(await startBehindProxy());
  const everybody = await Promise.all(
    PROTOCOLS.map(async ({ bidi, ...protocol }) => {
      const clients = undo.use(openClients({ bidi, ...protocol }, service.addresses));
      const { agentId, claw, user } = await newAgent(clients);
      const health = undo.use(new StreamReader((signal) => clients.health.watch({}, { signal })));
      const watch = undo.use(new Watch(clients, { filter: { clawIdentifiers: [claw] } }));
      await watch.untilComplete();
      const heartbeat = bidi ? undo.use(new HeartbeatStream(clients)) : undefined;
      await heartbeat?.beat({ beats: [{ agentId }] });
      return { ...clients, agentId, user, health, watch, heartbeat };
    }),
  );

  proxy.cut();
  await Promise.all(
    everybody.map(async (clients) => {
      const { agents, users, agentId, user } = clients;
      for (const read of [
        () => getAgent(clients, agentId),
        () => agents.listAgents({}),
        () => agents.getFleet({}),
        () => agents.listAgentTransitions({ agentId }),
        () => agents.batchGetAgents({ agentIds: [agentId] }),
        () => users.getUser({ key: { case: "id", value: user.id } }),
        () => users.listUsers({}),
      ]) {
        expect(await failure(read())).toMatchObject(AWAY);
      }
    }),
  );
  // A report waits for the database, and so do a change and a unary heartbeat, for a while.
  const changes = everybody.map(async ({ agents, users, agentId, user, heartbeat }) => {
    heartbeat?.send({ beats: [{ agentId, status: ON_CALL }] });
    return await Promise.all([
      users.updateUser({ id: user.id, displayName: "later", requestId: unique("request") }),
      agents.sendHeartbeat({ beats: [{ agentId }] }),
    ]);
  });
  const notServing = everybody.map(({ health }) =>
    health.until("NOT_SERVING", () => health.messages.at(-1)?.status === ServingStatus.NOT_SERVING),
  );
  await Promise.all(notServing);
  for (const { heartbeat } of everybody) expect(heartbeat?.acknowledged ?? 1n).toBe(1n);

  proxy.mend();
  for (const [{ user }, { results }] of await Promise.all(changes)) {
    expect(user?.displayName).toBe("later");
    expect(results[0]?.error).toBeUndefined();
  }
  await Promise.all(
    everybody.map(async (clients) => {
      const { agentId, health, heartbeat, watch } = clients;
      await health.until("SERVING again", () => health.messages.at(-1)?.status === ServingStatus.SERVING);
      if (heartbeat !== undefined) {
        await heartbeat.until("the report is acknowledged", () => heartbeat.acknowledged === 2n);
        expect((await getAgent(clients, agentId)).status).toBe(ON_CALL);
      }
      const { revision } = await setStatus(clients, agentId, BUSY);
      await watch.until("the watch goes on", () => watch.revision >= revision);
    }),
  );
});

// The service's own deadline is longer than its timeout for the database.
const NO_DEADLINE = { timeoutMs: 0 };

test("changes and heartbeats are rejected after a while when the database stays away", {
  timeout: 60_000,
}, async () => {
  await using undo = new AsyncDisposableStack();
  const { service, proxy } = undo.use(await startBehindProxy());
  const callers = await Promise.all(
    PROTOCOLS.map(async (protocol) => {
      const clients = undo.use(openClients(protocol, service.addresses));
      return { ...clients, ...(await newAgent(clients)) };
    }),
  );
  proxy.cut();
  const outcomes = await Promise.all(
    callers.flatMap(({ users, agents, agentId, user }) => [
      failure(users.createUser({ username: unique("user") }, NO_DEADLINE)),
      failure(users.updateUser({ id: user.id, displayName: "never" }, NO_DEADLINE)),
      failure(users.deleteUser({ id: user.id }, NO_DEADLINE)),
      failure(agents.createAgent({ userId: user.id, agentId: unique("agent"), clawIdentifier: "claw" }, NO_DEADLINE)),
      failure(agents.updateAgentStatus({ agentId, status: BUSY }, NO_DEADLINE)),
      failure(agents.moveAgent({ agentId, clawIdentifier: "elsewhere" }, NO_DEADLINE)),
      failure(agents.deleteAgent({ agentId }, NO_DEADLINE)),
      failure(agents.sendHeartbeat({ beats: [{ agentId }] }, NO_DEADLINE)),
    ]),
  );
  for (const outcome of outcomes) expect(outcome).toMatchObject(AWAY);
});
