import { createServiceClients } from "harborforge-agents-client";
import { callErrorOf, HeartbeatStream } from "harborforge-agents-client/internal";
import { pino } from "pino";
import { expect, test } from "vitest";
import { Server } from "../../src/server.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { DatabaseProxy } from "../support/gate-proxy.ts";
import { type RunningService, startService } from "../support/service.ts";
import { until } from "../support/until.ts";

const PACE = { shortestIntervalMs: 1_500, heartbeatsPerSecond: 10_000 };

/**
 * The agent's last heartbeat, in milliseconds by the database's clock, and the number of its expiries so far.
 */
async function seen({ query }: RunningService, agentId: string) {
  const [row] = await query<{ heard: number; now: number; offline: number }>(
    `SELECT extract(epoch FROM l.last_heartbeat)::float8 * 1000 AS heard, extract(epoch FROM clock_timestamp())::float8 * 1000 AS now,
       (SELECT count(*)::integer FROM agent_transitions t WHERE t.agent_id = a.agent_id AND t.to_status = 'offline') AS offline
     FROM agent_liveness l JOIN agents a ON a.id = l.agent WHERE a.agent_id = $1`,
    agentId,
  );
  if (row === undefined) throw new Error(`there is no agent ${agentId}`);
  return row;
}

test.each([
  ["before it has detected its isolation", "at once"],
  ["after it has detected its isolation", "later"],
])("a claw that connects to a replica %s moves to another one, and its agents stay online", async (_, when) => {
  await using undo = new AsyncDisposableStack();
  const service = undo.use(await startService({ pace: PACE }));
  const toDatabase = undo.use(await DatabaseProxy.open(service.databaseUrl));
  const cut = undo.use(
    await Server.start({
      databaseUrl: toDatabase.url,
      grpcAddress: "127.0.0.1:0",
      httpAddress: "127.0.0.1:0",
      pace: PACE,
      firstLeaseMs: 60_000,
      log: pino({ level: "silent" }),
    }),
  );
  undo.defer(() => toDatabase.mend());
  const portOf = ({ grpc }: { readonly grpc: string }): number => Number(grpc.split(":")[1]);
  const [fine, isolated] = [portOf(service.addresses), portOf(cut.addresses)];
  // Like a balancer without health checks: connections alternate between the two.
  const balancer = undo.use(await FaultProxy.open(() => [fine, isolated]));

  using direct = createServiceClients({ address: service.addresses.grpc });
  const agentId = `finds another one ${when}`;
  await direct.users.createUser({ username: agentId, agentId, clawIdentifier: "claw-1" });
  using clients = createServiceClients({ address: balancer.address });
  const stream = new HeartbeatStream({ clients, clawIdentifier: "claw-1", instanceId: "process" });
  undo.defer(() => stream.close());
  stream.add(agentId);
  await until("it is heard", async () => (await seen(service, agentId)).heard > 0);

  toDatabase.cut();
  if (when === "later") {
    using asks = createServiceClients({ address: cut.addresses.grpc });
    await until("new streams are refused", async () => {
      const answers = asks.agents.heartbeat(
        (async function* () {
          yield { sequence: 1n };
        })(),
      );
      try {
        for await (const { acknowledgedSequence } of answers) if (acknowledgedSequence === 1n) break;
        return false;
      } catch (error) {
        return callErrorOf(error).reason === "DATABASE_UNAVAILABLE";
      }
    });
  }
  const { now } = await seen(service, agentId);
  // The next connection goes to the isolated replica.
  balancer.drop();
  const leaseMs = 3 * PACE.shortestIntervalMs;
  await until("it is heard, again and again", async () => (await seen(service, agentId)).heard > now + leaseMs);
  expect((await seen(service, agentId)).offline).toBe(0);
});
