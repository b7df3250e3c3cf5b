import { describe, expect, test } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { expectInvalid, newAgent, rateLimit, setStatus } from "../support/contract-steps.ts";
import { FleetWatch } from "../support/contract-streams.ts";
import { TESTED_PROTOCOLS, useClients } from "../support/protocol-clients.ts";
import { unique, useService } from "../support/service.ts";

const service = useService();
const { IDLE, BUSY, EXHAUSTED, OFFLINE } = AgentStatus;

describe.concurrent.each(TESTED_PROTOCOLS)("WatchFleet: $name", (protocol) => {
  const clients = useClients(protocol, service);
  const { agents } = clients;

  test("starts with the response of GetFleet", async () => {
    const claw = unique("claw");
    const [one, two] = [await newAgent(clients, claw), await newAgent(clients, claw)];
    await newAgent(clients, claw);
    await setStatus(clients, one.agentId, BUSY);
    await agents.updateAgentStatus({ agentId: two.agentId, status: EXHAUSTED, exhaustion: rateLimit(600n) });
    const filter = { clawIdentifiers: [claw] };
    await using watch = new FleetWatch(clients, { filter });
    await watch.untilComplete();
    const fleet = await agents.getFleet({ filter });
    const last = watch.messages.at(-1);
    expect(last).toMatchObject({ statuses: fleet.statuses, claws: fleet.claws, brake: { engaged: false } });
    expect(last?.leaseTtl).toEqual(fleet.leaseTtl);
    expect(last?.nextHeartbeatIn?.seconds).toBeDefined();
    expect(watch.all).toEqual([
      [IDLE, 1n],
      [BUSY, 1n],
      [EXHAUSTED, 1n],
    ]);
  });

  test("follows creation, status, move and deletion, and drops a claw without agents", async () => {
    const [claw, other] = [unique("claw"), unique("claw")];
    await using watch = new FleetWatch(clients, { filter: { clawIdentifiers: [claw, other] } });
    await watch.untilComplete();
    expect(watch.claws.size).toBe(0);
    const become = async (expected: Record<string, readonly (readonly [AgentStatus, bigint])[]>) => {
      const wanted = new Map(Object.entries(expected));
      await watch.until("the counts are as expected", () => sameClaws(watch.claws, wanted));
    };
    const { agentId } = await newAgent(clients, claw);
    await become({ [claw]: [[IDLE, 1n]] });
    const second = await newAgent(clients, claw);
    await setStatus(clients, agentId, BUSY);
    await become({
      [claw]: [
        [IDLE, 1n],
        [BUSY, 1n],
      ],
    });
    await agents.moveAgent({ agentId, clawIdentifier: other });
    await become({ [claw]: [[IDLE, 1n]], [other]: [[BUSY, 1n]] });
    await setStatus(clients, second.agentId, OFFLINE);
    await become({ [claw]: [[OFFLINE, 1n]], [other]: [[BUSY, 1n]] });
    await agents.deleteAgent({ agentId });
    await become({ [claw]: [[OFFLINE, 1n]] });
    const { revision } = await agents.getFleet({ filter: { clawIdentifiers: [claw] } });
    expect(watch.messages.at(-1)?.revision).toBeLessThanOrEqual(revision);
    const revisions = watch.messages.map((message) => message.revision);
    expect(revisions).toEqual([...revisions].sort((a, b) => Number(a - b)));
  });

  test("counts only what passes the filter", async () => {
    const claw = unique("claw");
    const { agentId } = await newAgent(clients, claw);
    await using watch = new FleetWatch(clients, { filter: { clawIdentifiers: [claw], statuses: [BUSY] } });
    await watch.untilComplete();
    expect(watch.all).toEqual([]);
    await setStatus(clients, agentId, BUSY);
    await watch.until("the agent is counted", () => watch.all.length > 0);
    expect(watch.all).toEqual([[BUSY, 1n]]);
    await setStatus(clients, agentId, IDLE);
    await watch.until("the agent is not counted", () => watch.all.length === 0);
    expect(watch.claws.size).toBe(0);
  });

  test("sends a message at the latest after the interval, without a change", async () => {
    const filter = { clawIdentifiers: [unique("claw")] };
    await using watch = new FleetWatch(clients, { filter, bookmarkInterval: { seconds: 1n } });
    await watch.until("a second message", () => watch.messages.length > 1);
    expect(watch.claws.size).toBe(0);
  });

  test("names invalid fields", async () => {
    const read = async () => {
      const request = { filter: { agentIds: [""] }, bookmarkInterval: { nanos: 5 } };
      for await (const _ of agents.watchFleet(request)) return;
    };
    await expectInvalid(read(), "filter.agent_ids[0]", "bookmark_interval");
  });
});

type Claws = ReadonlyMap<string, readonly (readonly [AgentStatus, bigint])[]>;

function sameClaws(one: Claws, other: Claws): boolean {
  const text = (claws: Claws) => JSON.stringify([...claws].map(([claw, counts]) => [claw, counts.map(String)]).sort());
  return text(one) === text(other);
}
