import { createHeartbeatClient, createServiceClients } from "harborforge-agents-client";
import { expect, test } from "vitest";
import { statusName } from "../../common/contract/enum-values.ts";
import { type AgentTransition, TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import type { Server } from "../../src/server.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { startReplica, unique } from "../support/service.ts";
import { until } from "../support/until.ts";

const AGENTS = 5;

/** A replica that can restart, always behind the same address. */
async function openSeat(undo: AsyncDisposableStack, databaseUrl: string) {
  let server: Server | undefined = await startReplica(databaseUrl);
  undo.defer(() => server?.stop(0));
  const port = (): number[] => (server === undefined ? [] : [Number(server.addresses.grpc.split(":").at(-1))]);
  const { address } = undo.use(await FaultProxy.open(port));
  return {
    address,
    async restart(): Promise<void> {
      const stopping = server;
      server = undefined;
      await stopping?.stop(2_000);
      server = await startReplica(databaseUrl);
    },
  };
}

test("a fleet stays online while its replicas restart one after the other, and the log has every acknowledged report", async () => {
  await using undo = new AsyncDisposableStack();
  const { url } = undo.use(await createTestDatabase());
  const seats = [await openSeat(undo, url), await openSeat(undo, url)];
  const addresses = seats.map(({ address }) => address);
  using service = createServiceClients({ addresses });
  const client = createHeartbeatClient({ addresses, claw: "claw-1" });
  undo.defer(() => client.close({ withinMs: 0 }));
  const agentIds = Array.from({ length: AGENTS }, () => unique("agent"));
  for (const agentId of agentIds) {
    await service.users.createUser({ username: agentId, agentId, clawIdentifier: "claw-1" });
  }

  let over = false;
  const acknowledged = new Map<string, string[]>(agentIds.map((agentId) => [agentId, []]));
  const work = Promise.all(
    [...acknowledged].map(async ([agentId, words]) => {
      const agent = client.agent(agentId);
      while (!over) {
        const word = words.length % 2 === 0 ? "busy" : "idle";
        expect(await (word === "busy" ? agent.busy() : agent.idle())).toBe("applied");
        words.push(word);
      }
    }),
  );
  const counts = () => [...acknowledged.values()].map((words) => words.length);
  const goesOn = async (what: string): Promise<void> => {
    const since = counts();
    await until(`every agent reports ${what}`, () => counts().every((count, n) => count > (since[n] ?? 0)));
  };
  await goesOn("at the beginning");
  for (const seat of seats) {
    await seat.restart();
    await goesOn("after a restart");
  }
  over = true;
  await work;

  for (const [agentId, words] of acknowledged) {
    const transitions: AgentTransition[] = [];
    for (let pageToken = ""; ; ) {
      const page = await service.agents.listAgentTransitions({ agentId, pageSize: 1_000, pageToken });
      transitions.push(...page.transitions);
      pageToken = page.nextPageToken;
      if (pageToken === "") break;
    }
    const reports = transitions.filter(({ cause }) => cause === TransitionCause.REPORT);
    expect(
      reports.map(({ toStatus }) => statusName(toStatus)),
      agentId,
    ).toEqual(words);
    expect(transitions.some(({ cause }) => cause === TransitionCause.LEASE_EXPIRED)).toBe(false);
  }
});
