import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { Membership } from "../../src/liveness/membership.ts";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { RowLocks } from "../support/gate-locks.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { alive, goodbye, reports } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

let testDatabase: TestDatabase;
let one: Replica;
let other: Replica;
let locks: RowLocks;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  [one, other] = await Promise.all([openReplica(testDatabase.url), openReplica(testDatabase.url)]);
  locks = await RowLocks.open(testDatabase.url);
});

afterAll(async () => {
  await locks[Symbol.asyncDispose]();
  await Promise.all([one[Symbol.asyncDispose](), other[Symbol.asyncDispose]()]);
  await testDatabase.drop();
});

afterEach(() => locks.rollback());

const SUPERSEDED = { refusal: { reason: "SESSION_SUPERSEDED" }, status: null, revision: null };

describe("a beat against a takeover by a stream at another replica", () => {
  test("that is written first counts, and the next one is rejected", async () => {
    const agentId = "renewed, then taken";
    await one.createAgent(agentId);
    using former = one.stream();
    await former.say(alive(agentId));
    using taker = other.stream();

    await locks.takeLiveness(agentId);
    const renewal = former.send(alive(agentId));
    await locks.waiting("renew-leases");
    const claim = taker.send(alive(agentId));
    await locks.waiting("claim-agents");
    await locks.commit();

    await Promise.all([former.acknowledgedUpTo(renewal), taker.acknowledgedUpTo(claim)]);
    expect(former.resultsOf(renewal)).toEqual([]);
    expect(taker.resultsOf(claim)).toMatchObject([{ status: "idle", refusal: null }]);
    expect(await former.say(reports(agentId, "busy"))).toMatchObject([SUPERSEDED]);
    expect(await taker.say(alive(agentId))).toEqual([]);
    expect(await storyOf(one, agentId)).toEqual([]);
  });

  test("that reports first counts, and the taker gets the reported status", async () => {
    const agentId = "reported, then taken";
    await one.createAgent(agentId);
    using former = one.stream();
    await former.say(alive(agentId));
    using taker = other.stream();

    await locks.takeLiveness(agentId);
    const report = former.send(reports(agentId, "busy"));
    await locks.waiting("commit-changes");
    const claim = taker.send(alive(agentId));
    await locks.waiting("claim-agents");
    await locks.commit();

    await Promise.all([former.acknowledgedUpTo(report), taker.acknowledgedUpTo(claim)]);
    expect(former.resultsOf(report)).toMatchObject([{ status: "busy", refusal: null }]);
    expect(taker.resultsOf(claim)).toMatchObject([{ status: "busy", refusal: null }]);
    expect(await former.say(alive(agentId))).toMatchObject([SUPERSEDED]);
    expect(await storyOf(one, agentId)).toEqual(["report: busy"]);
  });

  test.each([
    ["renewal", alive, "renew-leases"],
    ["report", (agentId: string) => reports(agentId, "busy"), "commit-changes"],
    ["goodbye", goodbye, "commit-changes"],
  ] as const)("that reaches the row after the taker changes nothing: a %s", async (what, beat, statement) => {
    const agentId = `taken, then a ${what}`;
    await one.createAgent(agentId);
    using former = one.stream();
    await former.say(alive(agentId));
    using taker = other.stream();

    await locks.takeLiveness(agentId);
    const claim = taker.send(alive(agentId));
    await locks.waiting("claim-agents");
    const late = former.send(beat(agentId));
    await locks.waiting(statement);
    // The taker's own first beat comes later still, so any write until then would be the former stream's.
    using hold = other.gate.hold("renew-leases");
    const before = await one.agents.get({ agentId });
    await locks.commit();

    await former.acknowledgedUpTo(late);
    expect(former.resultsOf(late)).toMatchObject([SUPERSEDED]);
    const { lastHeartbeat, leaseExpiresAt, status } = before;
    expect(await one.agents.get({ agentId })).toMatchObject({ lastHeartbeat, leaseExpiresAt, status, held: true });
    hold.release();
    await taker.acknowledgedUpTo(claim);
    expect(taker.resultsOf(claim)).toMatchObject([{ status: "idle", refusal: null }]);
    expect(await storyOf(one, agentId)).toEqual([]);
  });

  test("that waits in a buffer is never applied, also when the taker is at the same replica", async () => {
    const agentId = "buffered";
    await one.createAgent(agentId);
    using former = one.stream();
    await former.say(alive(agentId));

    // One report is on its way, so the next ones wait behind it.
    using hold = one.gate.hold("commit-changes");
    const late = former.send(reports(agentId, "on_call"), reports(agentId, "busy"), goodbye(agentId));
    await hold.arrived();
    using taker = one.stream();
    const claim = taker.send(alive(agentId));
    await until("the former is told", () => former.unasked(agentId).length > 0);
    hold.release();

    await Promise.all([former.acknowledgedUpTo(late), taker.acknowledgedUpTo(claim)]);
    expect(former.resultsOf(late)).toMatchObject([SUPERSEDED, SUPERSEDED, SUPERSEDED]);
    expect(former.unasked(agentId)).toMatchObject([SUPERSEDED]);
    expect(await storyOf(one, agentId)).toEqual([]);
  });
});

describe("a first beat that was stuck in a stalled replica", () => {
  const INSTANCE = { instanceId: "claw-1 started at noon" };

  test("cannot take the agent from the stream that replaced it", async () => {
    const agentId = "stalled before its claim";
    await one.createAgent(agentId);
    using hold = one.gate.hold("claim-agents");
    using stalled = one.stream({ ...INSTANCE, generation: 1n });
    const late = stalled.send(reports(agentId, "busy"));
    await hold.arrived();
    using replacement = other.stream({ ...INSTANCE, generation: 2n });
    expect(await replacement.say(reports(agentId, "on_call"))).toMatchObject([{ status: "on_call", refusal: null }]);
    hold.release();

    await stalled.acknowledgedUpTo(late);
    expect(stalled.resultsOf(late)).toMatchObject([SUPERSEDED]);
    expect(await stalled.say(goodbye(agentId))).toMatchObject([SUPERSEDED]);
    expect(await replacement.say(alive(agentId))).toEqual([]);
    expect(await storyOf(one, agentId)).toEqual(["report: on_call"]);

    // Once no stream holds the agent, the next beat of any stream claims it.
    replacement.close();
    await until("the agent is free", async () => !(await one.agents.get({ agentId })).held);
    expect(await stalled.say(reports(agentId, "idle"))).toMatchObject([{ status: "idle", refusal: null }]);
  });

  test("is void also when its claim had begun", async () => {
    const agentId = "stalled after its claim";
    await one.createAgent(agentId);
    using hold = one.gate.hold("commit-changes");
    using stalled = one.stream({ ...INSTANCE, generation: 1n });
    const late = stalled.send(reports(agentId, "busy"));
    await hold.arrived();
    using replacement = other.stream({ ...INSTANCE, generation: 2n });
    await replacement.say(reports(agentId, "on_call"));
    hold.release();

    await stalled.acknowledgedUpTo(late);
    expect(stalled.resultsOf(late)).toMatchObject([SUPERSEDED]);
    expect(await replacement.say(alive(agentId))).toEqual([]);
    expect(await storyOf(one, agentId)).toEqual(["report: on_call"]);
  });

  test("with the same generation comes later and wins, as between two processes", async () => {
    const agentId = "no generation";
    await one.createAgent(agentId);
    using hold = one.gate.hold("claim-agents");
    using late = one.stream({ instanceId: "another claw process", generation: 1n });
    const sequence = late.send(reports(agentId, "busy"));
    await hold.arrived();
    using early = other.stream({ ...INSTANCE, generation: 2n });
    await early.say(reports(agentId, "on_call"));
    hold.release();

    await late.acknowledgedUpTo(sequence);
    expect(late.resultsOf(sequence)).toMatchObject([{ status: "busy", refusal: null }]);
    expect(await early.say(alive(agentId))).toMatchObject([SUPERSEDED]);
    expect(await storyOf(one, agentId)).toEqual(["report: on_call", "report: busy"]);
  });

  test("claims nothing when its stream ended before the replica continued", async () => {
    const agentId = "slept through its end";
    await one.createAgent(agentId);
    using current = other.stream({ ...INSTANCE, generation: 1n });
    await current.say(alive(agentId));
    const awake = vi.spyOn(Membership.prototype, "awake", "get").mockReturnValue(false);
    const stalled = one.stream({ instanceId: "another claw process", generation: 1n });
    stalled.send(reports(agentId, "busy"));
    await until("the claim would be sent", () => awake.mock.calls.length > 1);
    stalled.close();
    awake.mockRestore();
    using later = one.stream({ instanceId: "another claw process", generation: 2n });
    expect(await later.say(goodbye("nobody"))).toMatchObject([{ refusal: { reason: "AGENT_NOT_FOUND" } }]);
    expect(await current.say(alive(agentId))).toEqual([]);
    expect(await storyOf(one, agentId)).toEqual([]);
  });

  test("with a generation beyond 32 bits is compared correctly", async () => {
    const agentId = "large generations";
    await one.createAgent(agentId);
    const largest = 2n ** 64n - 1n;
    using replacement = other.stream({ ...INSTANCE, generation: largest });
    await replacement.say(alive(agentId));
    using stalled = one.stream({ ...INSTANCE, generation: largest - 1n });
    expect(await stalled.say(alive(agentId))).toMatchObject([SUPERSEDED]);
  });
});

describe("a stream whose agent was deleted and created again", () => {
  async function recreate(agentId: string, at: Replica) {
    const { userId } = await at.agents.get({ agentId });
    await at.agents.delete(agentId, at.by);
    return await at.agents.create({ userId, agentId, clawIdentifier: "claw-1" }, at.by);
  }

  test.each([
    ["renewal", "other", alive, "renew-leases"],
    ["renewal", "same", alive, "renew-leases"],
    ["report", "other", (agentId: string) => reports(agentId, "busy"), "commit-changes"],
    ["goodbye", "other", goodbye, "commit-changes"],
  ] as const)("does not change the new agent by earlier beats: a %s, and the new one is created at the %s replica", async (...params) => {
    const [what, where, beat, statement] = params;
    const agentId = `${what} at the ${where}`;
    await one.createAgent(agentId);
    using stream = one.stream();
    await stream.say(alive(agentId));

    using hold = one.gate.hold(statement, "before", 1);
    const late = stream.send(beat(agentId));
    await hold.arrived();
    const created = await recreate(agentId, where === "same" ? one : other);
    hold.release();

    await stream.acknowledgedUpTo(late);
    expect(stream.resultsOf(late)).toMatchObject([{ refusal: { reason: "AGENT_NOT_FOUND" }, status: null }]);
    expect(await one.agents.get({ agentId })).toEqual(created);

    // It may claim it again, as another agent: the response names the new one.
    await one.untilHeard();
    const [introduced] = await stream.say(alive(agentId));
    expect(introduced).toMatchObject({ status: "idle", revision: created.revision, refusal: null });
    expect(await one.agents.get({ agentId })).toMatchObject({ id: created.id, held: true });
  });

  test("does not change the new agent before it learns of it", async () => {
    await using isolated = await openReplica(testDatabase.url, { listens: false });
    const agentId = "unheard of";
    await one.createAgent(agentId);
    using stream = isolated.stream();
    await stream.say(alive(agentId));
    const created = await recreate(agentId, other);

    for (const beat of [alive(agentId), reports(agentId, "busy"), goodbye(agentId)]) {
      expect(await stream.say(beat)).toMatchObject([{ refusal: { reason: "AGENT_NOT_FOUND" } }]);
    }
    expect(await one.agents.get({ agentId })).toEqual(created);
  });

  test("yields to the stream that holds the new agent, unless it takes that over", async () => {
    const agentId = "held anew";
    await one.createAgent(agentId);
    using old = one.stream();
    await old.say(alive(agentId));
    using hold = one.gate.hold("commit-changes", "before", 1);
    const late = old.send(reports(agentId, "busy"));
    await hold.arrived();
    await recreate(agentId, other);
    using anew = other.stream();
    await anew.say(reports(agentId, "on_call"));
    hold.release();

    await old.acknowledgedUpTo(late);
    expect(old.resultsOf(late)).toMatchObject([{ refusal: { reason: "AGENT_NOT_FOUND" } }]);
    expect(await anew.say(alive(agentId))).toEqual([]);
    expect((await one.agents.get({ agentId })).status).toBe("on_call");
  });
});

describe("a stream that ends before its claim completes", () => {
  test("does not keep the agent from other streams", async () => {
    const agentId = "claimed by the gone";
    await one.createAgent(agentId);
    using former = other.stream();
    await former.say(alive(agentId));
    using hold = one.gate.hold("claim-agents", "after");
    const gone = one.stream();
    gone.send(alive(agentId));
    await hold.arrived();
    expect(await former.say(reports(agentId, "busy"))).toMatchObject([SUPERSEDED]);
    gone.close();
    hold.release();
    await until("nobody holds it", async () => !(await one.agents.get({ agentId })).held);
    expect(await former.say(reports(agentId, "busy"))).toMatchObject([{ status: "busy", refusal: null }]);
  });
});

test("an agent that moves during a claim is claimed again by a permitted stream", async () => {
  const agentId = "moved after the claim";
  await one.createAgent(agentId, "claw-1");
  using stream = one.stream();
  using hold = one.gate.hold("claim-agents", "after", 1);
  const sequence = stream.send(reports(agentId, "busy"));
  await hold.arrived();
  await other.agents.move(agentId, "claw-2", other.by);
  hold.release();
  await stream.acknowledgedUpTo(sequence);
  expect(stream.resultsOf(sequence)).toMatchObject([{ status: "busy", refusal: null }]);
});

test("an agent that moves during a claim by a stream of its former claw does not belong to that stream", async () => {
  const agentId = "moved under the claim";
  await one.createAgent(agentId, "claw-1");
  using former = other.stream({ clawIdentifier: "claw-1" });

  await locks.takeCounter();
  const moved = one.agents.move(agentId, "claw-2", one.by);
  await locks.waiting("commit-changes");
  const sequence = former.send(reports(agentId, "busy"));
  await locks.waiting("claim-agents");
  await locks.commit();

  await moved;
  await former.acknowledgedUpTo(sequence);
  expect(former.resultsOf(sequence)).toMatchObject([{ refusal: { reason: "WRONG_CLAW" }, status: null }]);
  await until("nobody holds it", async () => !(await one.agents.get({ agentId })).held);
  expect(await storyOf(one, agentId)).toEqual(["moved: idle"]);
});
