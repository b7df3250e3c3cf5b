import { Code } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { type Agent, AgentStatus, TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentChangeType } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import {
  type Bound,
  expectInvalid,
  expectRefusal,
  getAgent,
  newAgent,
  present,
  rateLimit,
  setStatus,
} from "../support/contract-steps.ts";
import { Watch } from "../support/contract-streams.ts";
import { openClients, TESTED_PROTOCOLS, useClients } from "../support/protocol-clients.ts";
import { failure } from "../support/rpc-clients.ts";
import { unique, useService } from "../support/service.ts";

const service = useService();
const { IDLE, ON_CALL, BUSY, EXHAUSTED, OFFLINE } = AgentStatus;
const { ENTERED, UPDATED, LEFT } = AgentChangeType;

/** An agent as a watcher sees it: without fields that change without transitions. */
function watched(agent: Agent): object {
  const { lastHeartbeat: _, leaseExpiresAt: __, suspectSince: ___, ...rest } = agent;
  return rest;
}

describe.concurrent.each(TESTED_PROTOCOLS)("WatchAgents: $name", (protocol) => {
  const clients = useClients(protocol, service);
  const { agents } = clients;

  test("starts with a snapshot, which a bookmark completes", async () => {
    const claw = unique("claw");
    const bound: Bound[] = [];
    for (let count = 0; count < 3; count += 1) bound.push(await newAgent(clients, claw));
    const [one, two, three] = bound.map(({ agentId }) => agentId);
    await setStatus(clients, present(one), BUSY);
    await agents.updateAgentStatus({ agentId: present(two), status: EXHAUSTED, exhaustion: rateLimit(600n) });
    await agents.sendHeartbeat({ beats: [{ agentId: present(three) }] });
    await using watch = new Watch(clients, { filter: { clawIdentifiers: [claw] } });
    await watch.untilComplete();
    const shown = watch.messages.flatMap(({ snapshotAgents }) => snapshotAgents);
    const current = await Promise.all(bound.map(({ agentId }) => getAgent(clients, agentId)));
    expect(shown).toEqual(current.map(watched));
    expect(shown.every((agent) => agent.leaseExpiresAt === undefined && agent.lastHeartbeat === undefined)).toBe(true);
    expect(watch.changes).toEqual([]);
    for (const { revision, bookmark } of watch.messages) {
      expect(revision === 0n).toBe(bookmark?.snapshotComplete !== true);
    }
    expect(watch.revision).toBeGreaterThanOrEqual(
      current.map(({ revision }) => revision).reduce((a, b) => (a > b ? a : b)),
    );
  });

  test("starts with an empty snapshot when no agent passes", async () => {
    await using watch = new Watch(clients, { filter: { clawIdentifiers: [unique("claw")] } });
    await watch.untilComplete();
    // Where the database takes long, an empty message says before that the watch stands.
    expect(watch.messages.flatMap(({ snapshotAgents, changes }) => [...snapshotAgents, ...changes])).toEqual([]);
    expect(watch.messages.at(-1)).toMatchObject({ bookmark: { snapshotComplete: true } });
    expect(watch.revision).toBeGreaterThan(0n);
  });

  test("reports entering, updated and leaving agents: creation, status, move, deletion", async () => {
    const claw = unique("claw");
    await using watch = new Watch(clients, { filter: { clawIdentifiers: [claw] } });
    await watch.untilComplete();

    const { agentId, agent } = await newAgent(clients, claw);
    expect(await watch.change(0)).toMatchObject({
      type: ENTERED,
      agent: watched(agent),
      transition: { cause: TransitionCause.CREATED, revision: agent.revision, agentId },
      conflated: 0,
    });

    await agents.sendHeartbeat({ beats: [{ agentId, status: BUSY }] });
    const busy = await getAgent(clients, agentId);
    const reported = await watch.change(1);
    expect(reported).toMatchObject({ type: UPDATED, transition: { cause: TransitionCause.REPORT } });
    expect(reported.agent).toEqual(watched(busy));

    const moved = present((await agents.moveAgent({ agentId, clawIdentifier: `${claw}-2` })).agent);
    const left = await watch.change(2);
    expect(left).toMatchObject({
      type: LEFT,
      transition: { cause: TransitionCause.MOVED, fromClawIdentifier: claw, toClawIdentifier: `${claw}-2` },
    });
    expect(left.agent).toEqual(watched(moved));

    // Outside the filter: the watch reports nothing.
    await setStatus(clients, agentId, ON_CALL);
    const back = present((await agents.moveAgent({ agentId, clawIdentifier: claw })).agent);
    const entered = await watch.change(3);
    expect(entered).toMatchObject({ type: ENTERED, transition: { revision: back.revision } });
    expect(entered.agent).toEqual(watched(back));

    const { revision } = await agents.deleteAgent({ agentId });
    const deleted = await watch.change(4);
    expect(deleted).toMatchObject({ type: LEFT, transition: { cause: TransitionCause.DELETED, revision } });
    // Right before it.
    expect(deleted.agent).toEqual(watched(back));

    const again = await newAgent(clients, claw);
    expect(await watch.change(5)).toMatchObject({ type: ENTERED, agent: { id: again.agent.id } });
    const revisions = watch.changes.map(({ transition }) => transition?.revision ?? 0n);
    expect(revisions).toEqual(revisions.toSorted((a, b) => (a < b ? -1 : 1)));
    expect(watch.revision).toBeGreaterThanOrEqual(present(revisions.at(-1)));
  });

  test("reports entering, updated and leaving agents by status, within a claw", async () => {
    const claw = unique("claw");
    const { agentId } = await newAgent(clients, claw);
    const elsewhere = await newAgent(clients);
    const filter = { clawIdentifiers: [claw], statuses: [BUSY, ON_CALL] };
    await using watch = new Watch(clients, { filter });
    await watch.untilComplete();
    for (const status of [BUSY, ON_CALL, IDLE, OFFLINE]) await setStatus(clients, agentId, status);
    await setStatus(clients, elsewhere.agentId, BUSY);
    await agents.sendHeartbeat({ beats: [{ agentId, status: ON_CALL }] });
    await watch.change(3);
    expect(watch.changes.map(({ type, agent }) => [type, agent?.status])).toEqual([
      [ENTERED, BUSY],
      [UPDATED, ON_CALL],
      [LEFT, IDLE],
      [ENTERED, ON_CALL],
    ]);
    expect(watch.changes.every(({ agent }) => agent?.agentId === agentId)).toBe(true);
  });

  test("resumes from a revision with exactly the later changes", async () => {
    const { agentId, claw } = await newAgent(clients);
    const filter = { clawIdentifiers: [claw] };
    let afterRevision: bigint;
    {
      await using watch = new Watch(clients, { filter });
      await watch.untilComplete();
      await setStatus(clients, agentId, BUSY);
      await watch.change(0);
      afterRevision = watch.revision;
    }
    const onCall = await setStatus(clients, agentId, ON_CALL);
    await agents.deleteAgent({ agentId });
    await using resumed = new Watch(clients, { filter, afterRevision });
    await resumed.change(1);
    expect(resumed.changes).toMatchObject([
      { type: UPDATED, transition: { revision: onCall.revision } },
      { type: LEFT, transition: { cause: TransitionCause.DELETED } },
    ]);
    expect(resumed.changes.map(({ agent }) => agent)).toEqual([watched(onCall), watched(onCall)]);
    expect(resumed.messages.flatMap(({ snapshotAgents }) => snapshotAgents)).toEqual([]);
    expect(resumed.complete).toBe(false);
  });

  test("continues a list from its revision", async () => {
    const claw = unique("claw");
    await newAgent(clients, claw);
    const second = await newAgent(clients, claw);
    const filter = { clawIdentifiers: [claw] };
    const first = await agents.listAgents({ filter, pageSize: 1 });
    const changed = await setStatus(clients, second.agentId, BUSY);
    await using watch = new Watch(clients, { filter, afterRevision: first.revision });
    expect(await watch.change(0)).toMatchObject({ type: UPDATED, transition: { revision: changed.revision } });
  });

  test("reports its position at once, also without changes", async () => {
    const { revision } = await agents.getFleet({});
    await using watch = new Watch(clients, { filter: { clawIdentifiers: [unique("claw")] }, afterRevision: revision });
    await watch.until("the first message", () => watch.messages.length > 0);
    expect(watch.messages[0]).toMatchObject({ bookmark: { snapshotComplete: false }, snapshotAgents: [], changes: [] });
    expect(watch.revision).toBeGreaterThanOrEqual(revision);
  });

  test("distinguishes two agents of one agent_id", async () => {
    const { agent, agentId, user, claw } = await newAgent(clients);
    await using watch = new Watch(clients, { filter: { agentIds: [agentId] }, conflate: true });
    await watch.untilComplete();
    await agents.deleteAgent({ agentId });
    const again = await agents.createAgent({ userId: user.id, agentId, clawIdentifier: claw });
    await watch.change(1);
    expect(watch.changes).toMatchObject([
      { type: LEFT, agent: { id: agent.id } },
      { type: ENTERED, agent: { id: again.agent?.id } },
    ]);
  });

  test("watches users' agents", async () => {
    const { agentId, user } = await newAgent(clients);
    await using watch = new Watch(clients, { filter: { userIds: [user.id] } });
    await watch.untilComplete();
    expect(watch.messages.flatMap(({ snapshotAgents }) => snapshotAgents)).toMatchObject([{ agentId }]);
  });

  test("rejects compacted revisions, and future ones", async () => {
    const [counter] = await service().query<{ oldest: string }>("SELECT oldest FROM revision_counter");
    const metadata = { oldestRevision: present(counter).oldest };
    for (const afterRevision of [0n, 1n]) {
      await using gone = new Watch(clients, { afterRevision });
      await expectRefusal(gone.end(), Code.OutOfRange, "REVISION_COMPACTED", { metadata });
      // When the database is slow, a bookmark without a position shows that the watch is open.
      expect(gone.messages.flatMap(({ changes, snapshotAgents }) => [...changes, ...snapshotAgents])).toEqual([]);
      expect(gone.messages.every(({ revision }) => revision === afterRevision)).toBe(true);
    }
    await using future = new Watch(clients, { afterRevision: 2n ** 63n - 1n });
    expect(await failure(future.end())).toMatchObject({
      code: Code.OutOfRange,
      reason: "REVISION_IN_FUTURE",
      domain: "harborforge.agents",
    });
  });

  test("rejects invalid requests", async () => {
    const refused = async (request: ConstructorParameters<typeof Watch>[1], ...fields: [string, ...string[]]) => {
      await using watch = new Watch(clients, request);
      await expectInvalid(watch.end(), ...fields);
    };
    await refused(
      { afterRevision: -1n, filter: { statuses: [AgentStatus.UNSPECIFIED], agentIds: [""] }, bookmarkInterval: {} },
      "filter.agent_ids[0]",
      "filter.statuses[0]",
      "after_revision",
      "bookmark_interval",
    );
    await refused({ bookmarkInterval: { seconds: 300n, nanos: 1 } }, "bookmark_interval");
    await refused({ bookmarkInterval: { nanos: 999_999_999 } }, "bookmark_interval");
    await refused({ filter: { statuses: [99 as AgentStatus] } }, "filter.statuses[0]");
    await refused({ filter: { clawIdentifiers: Array.from({ length: 1_001 }, () => "a") } }, "filter.claw_identifiers");
  });
});

test("an idle watch reports its position at its interval, also when its filter excludes every change", async () => {
  await using undo = new AsyncDisposableStack();
  const everybody = TESTED_PROTOCOLS.map((protocol) => undo.use(openClients(protocol, service().addresses)));
  const [clients] = everybody;
  const filter = { clawIdentifiers: [unique("claw")] };
  const watches = everybody.map((own) => undo.use(new Watch(own, { filter, bookmarkInterval: { seconds: 1n } })));
  await Promise.all(watches.map((watch) => watch.untilComplete()));
  const { agent } = await newAgent(present(clients));
  await Promise.all(
    watches.map((watch) => watch.until("a bookmark behind the change", () => watch.revision >= agent.revision)),
  );
  for (const { messages, changes } of watches) {
    expect(messages.at(-1)).toMatchObject({ bookmark: { snapshotComplete: false } });
    expect(changes).toEqual([]);
  }
});

test("a snapshot larger than a message comes in several, none above 64 KiB, and only the last can be resumed from", async () => {
  await using undo = new AsyncDisposableStack();
  const everybody = TESTED_PROTOCOLS.map((protocol) => undo.use(openClients(protocol, service().addresses)));
  const clients = present(everybody[0]);
  const claw = "🚢".repeat(100) + unique("claw");
  await Promise.all(Array.from({ length: 150 }, () => newAgent(clients, claw)));
  for (const own of everybody) {
    await using watch = new Watch(own, { filter: { clawIdentifiers: [claw] } });
    await watch.untilComplete();
    expect(watch.messages.length).toBeGreaterThan(1);
    expect(watch.messages.slice(0, -1).every(({ revision }) => revision === 0n)).toBe(true);
    expect(watch.messages.flatMap(({ snapshotAgents }) => snapshotAgents)).toHaveLength(150);
  }
});
