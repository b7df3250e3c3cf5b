import { afterAll, beforeAll, expect, test } from "vitest";
import type { Wake } from "../../src/domain/wake.ts";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { alive, replies, reports } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";
import { aheadMs, CALENDAR, idleTaker, refusalOf, taker, untilWake, wake } from "../support/wake-scene.ts";

// Failures of other systems that hand out work, each with the report that describes it.

let testDatabase: TestDatabase;
let one: Replica;
let other: Replica;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  [one, other] = await Promise.all([openReplica(testDatabase.url), openReplica(testDatabase.url)]);
});

afterAll(async () => {
  await Promise.all([one[Symbol.asyncDispose](), other[Symbol.asyncDispose]()]);
  await testDatabase.drop();
});

const queued = { ifUnavailable: "queue" } as const;

// actions/runner#4728
test("an offer that is made while its stream ends is not lost", async () => {
  const first = await idleTaker(one, "aborted-1");
  const called = wake(other, "aborted-a", "aborted-1", queued);
  first.close();
  await called;
  using second = await taker(other, "aborted-1", { generation: 2n });
  const offer = await second.notice("aborted-a", "offered");
  const [accepted] = await second.say(replies(offer, "accept"));
  expect(accepted?.wakeResults).toMatchObject([{ state: "accepted", refusal: null }]);
});

// actions/runner#4670
test("a second wake does not disturb running work", async () => {
  using stream = await idleTaker(one, "second-1");
  await wake(one, "second-a", "second-1");
  const offer = await stream.notice("second-a", "offered");
  await stream.say(replies(offer, "accept"));
  expect(await refusalOf(wake(other, "second-b", "second-1"))).toMatchObject({
    reason: "AGENT_BUSY",
    metadata: { wakeId: "second-a" },
  });
  await wake(other, "second-c", "second-1", queued);
  await stream.say(replies(offer, "working"));
  expect(await one.wakes.get("second-a")).toMatchObject({ state: "accepted", cancelRequestedAt: null });
  const [finished] = await stream.say(replies(offer, "finished"));
  expect(finished?.wakeResults).toMatchObject([{ state: "finished", refusal: null }]);
  // The claw was told nothing of the others before.
  const told = stream.notices.map(({ wakeId }) => wakeId);
  expect(told.slice(0, told.lastIndexOf("second-a") + 1)).not.toContain("second-c");
  await stream.notice("second-c", "offered");
});

// hatchet-dev/hatchet#4254
test("an agent that beats without its stream is not woken", async () => {
  const stream = await idleTaker(one, "streamless-1");
  stream.close();
  await until("the stream is released", async () => !(await one.agents.get({ agentId: "streamless-1" })).held);
  await one.liveness.beat([alive("streamless-1")], { clawIdentifier: "claw-1", leaseMs: 30_000 });
  expect(await refusalOf(wake(other, "streamless-a", "streamless-1"))).toMatchObject({
    reason: "WAKES_NOT_TAKEN",
    retryAfterMs: expect.any(Number),
  });
  expect(await wake(other, "streamless-b", "streamless-1", queued)).toMatchObject({ wake: { reason: "no_session" } });
  expect((await one.agents.get({ agentId: "streamless-1" })).status).toBe("idle");
});

// riverqueue/river#1302
test("a deadline that was judged by an old state does not overwrite an outcome", async () => {
  await using database = await createTestDatabase();
  await using holder = await openReplica(database.url);
  await using sweeper = await openReplica(database.url);
  using stream = await idleTaker(holder, "sweeper-1");
  // The holder ends no offers here, so that the other replica does.
  using _due = holder.gate.hold("due-wakes");
  using commit = sweeper.gate.hold("commit-with-wakes");
  await wake(holder, "sweeper-a", "sweeper-1", { answerWithinMs: 1_000 });
  const offer = await stream.notice("sweeper-a", "offered");
  await commit.arrived();
  await stream.say(replies(offer, "accept"));
  await stream.say(replies(offer, "finished", { outcome: "succeeded" }));
  const finished = await holder.wakes.get("sweeper-a");
  expect(finished).toMatchObject({ state: "finished", outcome: "succeeded" });
  commit.release();
  // A later change of the same replica: the sweep before it has ended.
  await sweeper.agents.updateStatus("sweeper-1", { status: "on_call", holdMs: undefined }, undefined, sweeper.by);
  expect(await holder.wakes.get("sweeper-a")).toEqual(finished);
});

// paperclipai/paperclip#2516
test("a queued wake does not hold what it waits for", async () => {
  using stream = await idleTaker(one, "deadlock-1");
  await stream.say(reports("deadlock-1", "busy"));
  await wake(one, "deadlock-a", "deadlock-1", queued);
  const { revision } = await one.agents.get({ agentId: "deadlock-1" });
  expect(await stream.say(reports("deadlock-1", "idle", revision))).toMatchObject([{ status: "idle", refusal: null }]);
  await stream.notice("deadlock-a", "offered");
});

// paperclipai/paperclip#11112
test("an agent whose work was lost can be woken again", async () => {
  await using database = await createTestDatabase();
  await using replica = await openReplica(database.url, { intervalMs: 300 });
  const stream = await idleTaker(replica, "stale-1");
  await wake(replica, "stale-a", "stale-1");
  await stream.say(replies(await stream.notice("stale-a", "offered"), "accept"));
  stream.close();
  const lost = await untilWake(replica, "stale-a", "abandoned");
  expect(lost).toMatchObject({ reason: "offline", payload: null });
  expect((await replica.history("stale-1")).map(({ cause }) => cause)).toEqual([
    "created",
    "wake",
    "wake",
    "lease_expired",
    "wake",
  ]);
  using again = await taker(replica, "stale-1", { generation: 2n });
  expect(await wake(replica, "stale-b", "stale-1")).toMatchObject({ wake: { state: "offered" } });
  await again.notice("stale-b", "offered");
});

// paperclipai/paperclip#1063
test("a queue does not drain into a paused agent", async () => {
  using stream = await idleTaker(one, "drain-1");
  await stream.say(reports("drain-1", "busy"));
  await wake(one, "drain-a", "drain-1", queued);
  await other.wakes.pause({ agentId: "drain-1" }, undefined, "", one.by);
  await stream.say(reports("drain-1", "idle", (await one.agents.get({ agentId: "drain-1" })).revision));
  // Another agent's queue goes on, so the queues were looked at meanwhile.
  using busy = await idleTaker(one, "drain-2");
  await busy.say(reports("drain-2", "busy"));
  await wake(one, "drain-b", "drain-2", queued);
  await busy.say(reports("drain-2", "idle", (await one.agents.get({ agentId: "drain-2" })).revision));
  await busy.notice("drain-b", "offered");
  expect(await one.wakes.get("drain-a")).toMatchObject({ state: "queued", offers: 0 });
  expect((await one.agents.get({ agentId: "drain-1" })).status).toBe("idle");
});

// openclaw/openclaw#97739
test("a queued wake is not taken for an offered one", async () => {
  using stream = await idleTaker(one, "delivered-1");
  await stream.say(reports("delivered-1", "busy"));
  const { wake: waiting } = await wake(one, "delivered-a", "delivered-1", queued);
  expect(waiting).toMatchObject({ state: "queued", reason: "busy", offers: 0, offerRevision: 0n, answerBy: null });
  const guess = { agentId: "delivered-1", wakeId: "delivered-a", offerRevision: 0n };
  const [result] = await stream.say(replies(guess, "accept"));
  expect(result?.wakeResults).toMatchObject([{ state: "queued", refusal: { reason: "OFFER_OUTDATED" } }]);
  const states: Wake["state"][] = [];
  const following = new AbortController();
  const followed = (async () => {
    for await (const one_ of other.following.follow("delivered-a", following.signal)) states.push(one_.state);
  })();
  await until("the follower has the wake", () => states.length > 0);
  await stream.say(reports("delivered-1", "idle", (await one.agents.get({ agentId: "delivered-1" })).revision));
  const offer = await stream.notice("delivered-a", "offered");
  await until("the follower has the offer", () => states.includes("offered"));
  await stream.say(replies(offer, "accept"), replies(offer, "finished"));
  await followed;
  expect(states[0]).toBe("queued");
  expect(states.at(-1)).toBe("finished");
});

// openclaw/openclaw#143898
test("wakes that came due during a downtime expire, and are not offered all at once afterwards", async () => {
  await using database = await createTestDatabase();
  const before = await openReplica(database.url);
  const names = await before.seedAgents(17, "overdue-");
  for (const name of names) await wake(before, `${name}-a`, name, { ...queued, expiresAt: aheadMs(before, 1_000) });
  const expiry = aheadMs(before, 1_000);
  await before[Symbol.asyncDispose]();
  await using after = await openReplica(database.url);
  await until("the moment has passed", () => after.database.clock.now() > expiry);
  using stream = after.stream({ instanceId: "process-1", takesWakes: true });
  await stream.say(...names.map(alive));
  for (const name of names) expect(await untilWake(after, `${name}-a`, "expired")).toMatchObject({ offers: 0 });
  expect(stream.notices).toEqual([]);
});

// livekit/agents#1024
test("work whose reason is gone does not start", async () => {
  using stream = await idleTaker(one, "reason-1");
  await wake(one, "reason-a", "reason-1");
  await wake(one, "reason-b", "reason-1", queued);
  const offer = await stream.notice("reason-a", "offered");
  expect(await other.wakes.cancel("reason-b", "slot moved", CALENDAR)).toMatchObject({ state: "cancelled" });
  expect(await other.wakes.cancel("reason-a", "slot moved", CALENDAR)).toMatchObject({
    state: "cancelled",
    cancelNote: "slot moved",
  });
  const [late] = await stream.say(replies(offer, "accept"));
  expect(late?.wakeResults).toMatchObject([{ state: "cancelled", refusal: { reason: "WAKE_ENDED" } }]);
  await stream.notice("reason-a", "cancelled");
  expect((await one.agents.get({ agentId: "reason-1" })).status).toBe("idle");
  expect(stream.notices.filter(({ wakeId }) => wakeId === "reason-b")).toEqual([]);
});

// stablyai/orca#18368
test("the result of a worker that was given up is stored", async () => {
  using stream = await idleTaker(one, "late-result-1");
  await wake(one, "late-result-a", "late-result-1");
  const offer = await stream.notice("late-result-a", "offered");
  await stream.say(replies(offer, "accept"));
  await one.agents.updateStatus("late-result-1", { status: "idle", holdMs: 0 }, undefined, one.by);
  expect(await one.wakes.get("late-result-a")).toMatchObject({ state: "abandoned", reason: "service" });
  // By a unary heartbeat: the process may have lost its stream.
  const [result] = await other.liveness.beat([replies(offer, "finished", { outcome: "succeeded" })], {
    clawIdentifier: "claw-1",
    leaseMs: 30_000,
  });
  expect(result?.wakeResults).toMatchObject([{ state: "abandoned", refusal: null }]);
  expect(await one.wakes.get("late-result-a")).toMatchObject({ state: "abandoned", lateOutcome: "succeeded" });
  const [transition] = (await one.history("late-result-1")).slice(-1);
  expect(transition).toMatchObject({ cause: "wake", wake: { wakeId: "late-result-a", state: "abandoned" } });
});

// NousResearch/hermes-agent#59229
test("two schedulers that call for one slot start it once", async () => {
  using stream = await idleTaker(one, "twice-1");
  const expiresAt = aheadMs(one, 60_000);
  const calls = await Promise.all(
    [one, other, one, other].map((replica) => wake(replica, "twice-a", "twice-1", { ...queued, expiresAt })),
  );
  expect(new Set(calls.map(({ wake: { offerRevision } }) => offerRevision)).size).toBe(1);
  const offer = await stream.notice("twice-a", "offered");
  await stream.say(replies(offer, "accept"), replies(offer, "finished"));
  await wake(other, "twice-a", "twice-1", { ...queued, expiresAt });
  expect(await one.wakes.get("twice-a")).toMatchObject({ state: "finished", offers: 1 });
  expect(await storyOf(one, "twice-1")).toEqual(["wake: busy", "wake: busy", "wake: idle"]);
});

test("an outage of the agent's replica extends answer_by, and never expires_at", async () => {
  await using database = await createTestDatabase();
  await using replica = await openReplica(database.url);
  using _a = await idleTaker(replica, "outage-1");
  using _b = await idleTaker(replica, "outage-2");
  using _c = await idleTaker(replica, "outage-3");
  await wake(replica, "outage-a", "outage-1", { answerWithinMs: 1_000 });
  await wake(replica, "outage-b", "outage-2", { answerWithinMs: 1_000, expiresAt: aheadMs(replica, 1_500) });
  const [guard] = await replica.query<{ until: number }>(
    "UPDATE replicas SET no_lease_ends_before = clock_timestamp() + interval '4 seconds' RETURNING no_lease_ends_before AS until",
  );
  // It was made after the outage: its agent could be heard all the time.
  await wake(replica, "outage-c", "outage-3", { answerWithinMs: 1_000 });
  expect((await untilWake(replica, "outage-c", "lapsed")).endedAt ?? 0).toBeLessThan(guard?.until ?? 0);
  const expired = await untilWake(replica, "outage-b", "expired");
  expect(expired.endedAt ?? 0).toBeGreaterThanOrEqual(expired.expiresAt);
  expect(expired.endedAt ?? 0).toBeLessThan(guard?.until ?? 0);
  const lapsed = await untilWake(replica, "outage-a", "lapsed");
  expect(lapsed.endedAt ?? 0).toBeGreaterThanOrEqual(guard?.until ?? Number.POSITIVE_INFINITY);
});

test("an offer ends when a stream without takes_wakes takes the agent over", async () => {
  using first = await idleTaker(one, "plain-1");
  await wake(one, "plain-a", "plain-1");
  await first.notice("plain-a", "offered");
  using second = other.stream({ clawIdentifier: "claw-1", instanceId: "process-1", generation: 2n });
  await second.say(alive("plain-1"));
  expect(await untilWake(one, "plain-a", "lapsed")).toMatchObject({ reason: "no_session" });
  await one.untilStatus("plain-1", "idle");
  expect(await refusalOf(wake(one, "plain-b", "plain-1"))).toMatchObject({
    reason: "WAKES_NOT_TAKEN",
    retryAfterMs: undefined,
  });
  expect(second.notices).toEqual([]);
});
