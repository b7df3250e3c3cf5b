import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import type { Hold } from "../support/gate.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { alive, reports } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

/** The maximum number of batches of renewals that a replica has under way. */
const BATCHES_UNDERWAY = 2;
const SUPERSEDED = { refusal: { reason: "SESSION_SUPERSEDED" }, status: null, revision: null };

let testDatabase: TestDatabase;
let replica: Replica;
let other: Replica;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  [replica, other] = await Promise.all([openReplica(testDatabase.url), openReplica(testDatabase.url)]);
});
afterAll(async () => {
  await Promise.all([replica[Symbol.asyncDispose](), other[Symbol.asyncDispose]()]);
  await testDatabase.drop();
});

/** Renewals of other agents wait at the gate: later ones wait for their batch until it opens. */
async function occupyWriter(name: string): Promise<Hold> {
  const agentIds = Array.from({ length: BATCHES_UNDERWAY }, (_, n) => `${name} ${n}`);
  for (const agentId of agentIds) await replica.createAgent(agentId);
  const stream = replica.stream();
  await stream.say(...agentIds.map(alive));
  const hold = replica.gate.hold("renew-leases", "before", BATCHES_UNDERWAY);
  for (const [n, agentId] of agentIds.entries()) {
    stream.send(alive(agentId));
    await hold.arrived(n + 1);
  }
  return hold;
}

describe("a renewal that waits for its batch", () => {
  test("is rejected when a stream at the same replica takes the agent, and is not settled by the taker's renewal", async () => {
    const agentId = "taken while its renewal waits";
    await replica.createAgent(agentId);
    using former = replica.stream();
    await former.say(alive(agentId));
    using writer = await occupyWriter("occupies the writer");
    const late = former.send(alive(agentId));
    using taker = replica.stream();
    using claiming = replica.gate.hold("claim-agents", "before", 1);
    const claim = taker.send(alive(agentId));
    await claiming.arrived();
    claiming.release();
    // The former stream asks whether it may take the agent back.
    using reclaiming = replica.gate.hold("claim-agents", "before", 1);
    await reclaiming.arrived();
    expect(former.unasked(agentId)).toMatchObject([SUPERSEDED]);

    // The row written by the taker's heartbeat does not acknowledge the former stream's.
    writer.release();
    await taker.acknowledgedUpTo(claim);
    expect(taker.resultsOf(claim)).toMatchObject([{ status: "idle", refusal: null }]);
    expect(former.acknowledged).toBeLessThan(late);
    reclaiming.release();
    await former.acknowledgedUpTo(late);
    expect(await former.say(alive(agentId))).toMatchObject([SUPERSEDED]);
    expect(former.resultsOf(late)).toMatchObject([SUPERSEDED]);
  });
});

describe("a renewal that is written together with a later report", () => {
  test("is not rejected when the report is outdated", async () => {
    const agentId = "alive, then outdated";
    await replica.createAgent(agentId);
    using stream = replica.stream();
    await stream.say(reports(agentId, "idle"));
    using writer = await occupyWriter("occupies it again");
    const renewal = stream.send(alive(agentId));
    await other.agents.updateStatus(agentId, { status: "busy", holdMs: undefined }, undefined, other.by);
    await replica.untilHeard();
    const report = stream.send(reports(agentId, "idle"));
    await until("the report is rejected", () => stream.resultsOf(report).length > 0);
    writer.release();

    await stream.acknowledgedUpTo(report);
    expect(stream.resultsOf(renewal).filter(({ refusal }) => refusal !== null)).toEqual([]);
    expect(stream.resultsOf(report)).toMatchObject([{ status: "busy", refusal: { reason: "REPORT_OUTDATED" } }]);
  });
});

describe("a pending beat that changes nothing, after a service's change and before another stream's claim", () => {
  test.each([
    ["that confirms the change", (agentId: string) => reports(agentId, "busy")],
    ["that is outdated", (agentId: string) => reports(agentId, "idle")],
    ["without a status", alive],
  ])("%s: is rejected, renews no lease, and the hold stays", async (what, beat) => {
    const agentId = `set, then claimed: ${what}`;
    await replica.createAgent(agentId);
    using former = replica.stream();
    await former.say(alive(agentId));
    const set = await other.agents.updateStatus(agentId, { status: "busy", holdMs: undefined }, undefined, other.by);
    await replica.untilHeard();

    using commit = replica.gate.hold("commit-changes", "before", 1);
    const late = former.send(beat(agentId));
    await commit.arrived();
    using taker = other.stream();
    await taker.say(alive(agentId));
    const claimed = await other.agents.get({ agentId });
    commit.release();

    await former.acknowledgedUpTo(late);
    expect(former.resultsOf(late)).toMatchObject([SUPERSEDED]);
    const { lastHeartbeat, leaseExpiresAt, epoch, hold } = await other.agents.get({ agentId });
    expect({ lastHeartbeat, leaseExpiresAt, epoch, hold }).toEqual({
      lastHeartbeat: claimed.lastHeartbeat,
      leaseExpiresAt: claimed.leaseExpiresAt,
      epoch: claimed.epoch,
      hold: set.hold,
    });
  });
});

describe("a renewal that a service's change overtakes", () => {
  test("is judged again before the reports that the stream sent after it", async () => {
    const agentId = "said idle, then busy";
    await replica.createAgent(agentId);
    using stream = replica.stream();
    await stream.say(reports(agentId, "idle"));
    using hold = replica.gate.hold("renew-leases", "before", 1);
    stream.send(reports(agentId, "idle"));
    await hold.arrived();
    const last = stream.send(reports(agentId, "busy"));
    await other.agents.updateStatus(agentId, { status: "on_call", holdMs: 0 }, undefined, other.by);
    hold.release();

    await stream.acknowledgedUpTo(last);
    expect(await storyOf(replica, agentId)).toEqual(["service: on_call", "report: idle", "report: busy"]);
  });
});

test("a stream of another claw takes the agent from no stream, and gives it no new epoch", async () => {
  const agentId = "another claw's";
  await replica.createAgent(agentId, "claw-1");
  using holder = replica.stream({ clawIdentifier: "claw-1" });
  await holder.say(alive(agentId));
  const { epoch, replicaId } = await replica.agents.get({ agentId });
  using stranger = other.stream({ clawIdentifier: "claw-2" });
  expect(await stranger.say(reports(agentId, "busy"))).toMatchObject([{ refusal: { reason: "WRONG_CLAW" } }]);
  expect(await replica.agents.get({ agentId })).toMatchObject({ epoch, replicaId, held: true, status: "idle" });
  expect(await holder.say(alive(agentId))).toEqual([]);
  expect(holder.unasked(agentId)).toEqual([]);
});
