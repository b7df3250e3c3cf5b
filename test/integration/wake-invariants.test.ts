import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isTerminal, type Wake } from "../../src/domain/wake.ts";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { alive, goodbye, replies, reports } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";
import {
  ADMIN,
  aheadMs,
  CALENDAR,
  idleTaker,
  refusalOf,
  taker,
  untilWake,
  wake,
  wakeOf,
  wakesDigest,
} from "../support/wake-scene.ts";

// The invariants of wakes, in the order of ARCHITECTURE.md, on PostgreSQL. Where an invariant is about several replicas, the
// test has two.

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

describe("an agent has at most one open wake", () => {
  it("and the database rejects a second one", async () => {
    using _ = await idleTaker(one, "single-1");
    await wake(one, "single-a", "single-1");
    await wake(one, "single-b", "single-1", queued);
    await expect(
      one.query(
        `UPDATE wakes SET state = 'offered', offers = 1, offer_revision = 1, offered_at = clock_timestamp(),
           offered_on = 'claw-1', answer_by = expires_at WHERE wake_id = 'single-b'`,
      ),
    ).rejects.toMatchObject({ constraint: "wakes_open_key" });
  });

  it("and one that is created again under the same agent_id inherits none", async () => {
    using stream = await idleTaker(one, "again-1");
    await wake(one, "again-a", "again-1");
    await wake(one, "again-b", "again-1", queued);
    const offer = await stream.notice("again-a", "offered");
    await stream.say(replies(offer, "accept"));
    await one.agents.delete("again-1", one.by);
    const [first, second] = [await one.wakes.get("again-a"), await one.wakes.get("again-b")];
    expect(first).toMatchObject({ state: "abandoned", reason: "deleted", payload: null });
    expect(second).toMatchObject({ state: "cancelled", reason: "deleted", payload: null });
    // One transition ends them all.
    const [deletion] = (await one.history("again-1")).slice(-1);
    expect(deletion).toMatchObject({
      cause: "deleted",
      wake: { wakeId: "again-a", state: "abandoned" },
      openWake: null,
    });
    expect([first.revision, second.revision]).toEqual([deletion?.revision, deletion?.revision]);

    const [user] = await one.query<{ id: bigint }>("SELECT id FROM users WHERE username = 'again-1'");
    const anew = await one.agents.create(
      { userId: user?.id ?? 0n, agentId: "again-1", clawIdentifier: "claw-1" },
      one.by,
    );
    expect(anew.wakes).toBeNull();
    using _ = await taker(one, "again-1", { instanceId: "process-2" });
    expect(await wake(one, "again-c", "again-1")).toMatchObject({ wake: { state: "offered" } });
  });
});

describe("of racing calls for one agent", () => {
  it("at most one is offered; the others are refused with a reason, or queued", async () => {
    using _ = await idleTaker(one, "race-1");
    const calls = Array.from({ length: 12 }, (_, index) =>
      wake(index % 2 === 0 ? one : other, `race-${index}`, "race-1", index < 6 ? {} : queued),
    );
    const outcomes = await Promise.allSettled(calls);
    const wakes = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value.wake] : []));
    const refusals = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? [outcome.reason] : []));
    expect(wakes.filter(({ state }) => state === "offered")).toHaveLength(1);
    expect(wakes.filter(({ state }) => state === "queued").length + refusals.length).toBe(11);
    for (const refusal of refusals) expect(refusal).toMatchObject({ reason: "AGENT_BUSY" });
  });

  it("one wake_id is one wake, at any replica", async () => {
    using _ = await idleTaker(one, "same-1");
    const results = await Promise.all(
      [one, other, one, other].map((replica) => wake(replica, "same-a", "same-1", { expiresAt: SAME })),
    );
    expect(new Set(results.map(({ wake: { id } }) => id)).size).toBe(1);
    expect(await storyOf(one, "same-1")).toEqual(["wake: busy"]);
  });

  const SAME = Date.now() * 1_000 + 60_000_000;
});

describe("a wake_id", () => {
  it("with other content, or of another principal, is taken", async () => {
    using _ = await idleTaker(one, "taken-1");
    const content = wakeOf(one, "taken-a", "taken-1");
    await one.wakes.wake(content, undefined, CALENDAR);
    for (const [changed, caller] of [
      [{ ...content, payload: new Uint8Array([1]) }, CALENDAR],
      [{ ...content, claim: "on_call" }, CALENDAR],
      [{ ...content, agentId: "taken-2" }, CALENDAR],
      [content, { ...CALENDAR, principal: "service:other" }],
    ] as const) {
      expect(await refusalOf(one.wakes.wake(changed, undefined, caller))).toMatchObject({ reason: "WAKE_ID_TAKEN" });
    }
    // The revision of the first attempt does not matter any more.
    expect(await one.wakes.wake(content, 1n, CALENDAR)).toMatchObject({ wake: { state: "offered" } });
  });

  it("may try again after a refusal", async () => {
    await one.createAgent("retry-1");
    expect(await refusalOf(wake(one, "retry-a", "retry-1"))).toMatchObject({ reason: "WAKES_NOT_TAKEN" });
    expect(await refusalOf(one.wakes.get("retry-a"))).toMatchObject({ reason: "WAKE_NOT_FOUND" });
    using _ = await taker(one, "retry-1");
    expect(await wake(one, "retry-a", "retry-1")).toMatchObject({ wake: { state: "offered" } });
  });

  it("is refused for another revision, also with QUEUE, and for a time that has passed", async () => {
    using _ = await idleTaker(one, "revision-1");
    const outdated = one.wakes.wake(wakeOf(one, "revision-a", "revision-1", queued), 1n, CALENDAR);
    expect(await refusalOf(outdated)).toMatchObject({ reason: "REVISION_MISMATCH" });
    const past = wake(one, "revision-b", "revision-1", { ...queued, expiresAt: aheadMs(one, -1) });
    expect(await refusalOf(past)).toMatchObject({ reason: "WAKE_EXPIRED" });
  });
});

describe("an open wake", () => {
  it("gives the agent its claim while it is offered, and no claim outlives answer_by", async () => {
    using stream = await idleTaker(one, "claim-1");
    const offered = await wake(one, "claim-a", "claim-1", { claim: "on_call", answerWithinMs: 1_000 });
    expect(offered.agent?.status).toBe("on_call");
    const lapsed = await untilWake(one, "claim-a", "lapsed");
    expect(lapsed).toMatchObject({ reason: "no_answer", payload: null });
    // Never early.
    expect(lapsed.endedAt ?? 0).toBeGreaterThanOrEqual(offered.wake.answerBy ?? Number.POSITIVE_INFINITY);
    expect((await one.agents.get({ agentId: "claim-1" })).status).toBe("idle");
    expect(await stream.notice("claim-a", "lapsed")).toMatchObject({ reason: "no_answer", payload: null });
    // A client that repeats its old view does not make the agent busy again.
    const old = { ...(await one.agents.get({ agentId: "claim-1" })) };
    const [held] = await stream.say(reports("claim-1", "on_call", offered.wake.offerRevision));
    expect(held).toMatchObject({ status: "idle", refusal: { reason: "REPORT_OUTDATED" } });
    const [counts] = await stream.say(reports("claim-1", "on_call", old.revision));
    expect(counts).toMatchObject({ status: "on_call", refusal: null });
  });

  it("keeps its agent from idle: a report of idle is held off until the wake has ended", async () => {
    using stream = await idleTaker(one, "held-1");
    await wake(one, "held-a", "held-1");
    const offer = await stream.notice("held-a", "offered");
    const [during] = await stream.say(reports("held-1", "idle", offer.offerRevision));
    expect(during).toMatchObject({ status: "busy", refusal: { reason: "REPORT_OUTDATED" } });
    const [accepted] = await stream.say(replies(offer, "accept", { report: "idle" }));
    expect(accepted).toMatchObject({ wakeResults: [{ state: "accepted" }], refusal: { reason: "REPORT_OUTDATED" } });
    const [early] = await stream.say(reports("held-1", "idle", offer.offerRevision));
    expect(early).toMatchObject({ status: "busy", refusal: { reason: "REPORT_OUTDATED" } });
    const [unreported] = await stream.say(reports("held-1", "idle", early?.revision ?? 0n));
    expect(unreported).toMatchObject({ status: "idle", refusal: null });
    expect(await one.wakes.get("held-a")).toMatchObject({ state: "abandoned", reason: "unreported" });
  });
});

describe("an acceptance", () => {
  it("comes from the session in force, with the current offer_revision", async () => {
    using first = await idleTaker(one, "fence-1", { instanceId: "process-1" });
    await wake(one, "fence-a", "fence-1");
    const offer = await first.notice("fence-a", "offered");
    // Another process takes the agent over, at the other replica. The same offer is sent to it.
    using second = await taker(other, "fence-1", { instanceId: "process-2" });
    const again = await second.notice("fence-a", "offered");
    expect(again.offerRevision).toBe(offer.offerRevision);
    const [late] = await first.say(replies(offer, "accept"));
    expect(late).toMatchObject({ refusal: { reason: "SESSION_SUPERSEDED" } });
    expect(late?.wakeResults).toBeUndefined();
    expect((await one.wakes.get("fence-a")).state).toBe("offered");
    const [outdated] = await second.say(replies({ ...again, offerRevision: again.offerRevision - 1n }, "accept"));
    expect(outdated?.wakeResults).toMatchObject([{ state: "offered", refusal: { reason: "OFFER_OUTDATED" } }]);
    const [accepted] = await second.say(replies(again, "accept"));
    expect(accepted?.wakeResults).toMatchObject([{ state: "accepted", refusal: null }]);
    expect(await one.wakes.get("fence-a")).toMatchObject({ acceptedBy: "process-2" });
  });
});

describe("a wake ends at most once", () => {
  it("whatever comes after its end: replies, cancellations, deadlines and repetitions change no state", async () => {
    using stream = await idleTaker(one, "once-1");
    await wake(one, "once-a", "once-1");
    const offer = await stream.notice("once-a", "offered");
    await stream.say(replies(offer, "decline", { reason: "unsuitable" }));
    const ended = await one.wakes.get("once-a");
    expect(ended).toMatchObject({ state: "declined", reason: "unsuitable" });
    for (const type of ["accept", "working", "decline", "finished"] as const) {
      const [result] = await stream.say(replies(offer, type));
      expect(result?.wakeResults).toMatchObject([{ state: "declined", refusal: { reason: "WAKE_ENDED" } }]);
    }
    await one.wakes.cancel("once-a", "too late", CALENDAR);
    expect(await one.wakes.get("once-a")).toEqual(ended);
  });

  it("and one that is not accepted has ended by expires_at, with the last obstacle as its reason", async () => {
    await one.createAgent("expiry-1");
    const { wake: waiting } = await wake(one, "expiry-a", "expiry-1", { ...queued, expiresAt: aheadMs(one, 1_500) });
    expect(waiting).toMatchObject({ state: "queued", reason: "no_session" });
    const expired = await untilWake(one, "expiry-a", "expired");
    expect(expired).toMatchObject({ reason: "no_session", offers: 0 });
    expect(expired.endedAt ?? 0).toBeGreaterThanOrEqual(expired.expiresAt);
  });
});

describe("no offer is made at or after expires_at", () => {
  it("and an offer before it ends by then, whatever answer_within says", async () => {
    using stream = await idleTaker(one, "late-1");
    const { wake: offered } = await wake(one, "late-a", "late-1", {
      ...queued,
      answerWithinMs: 600_000,
      expiresAt: aheadMs(one, 1_500),
    });
    expect(offered.answerBy).toBe(offered.expiresAt);
    const expired = await untilWake(one, "late-a", "expired");
    expect(expired.endedAt ?? 0).toBeGreaterThanOrEqual(offered.expiresAt);
    expect(expired).toMatchObject({ reason: "no_answer", offers: 1 });
    expect((await one.untilStatus("late-1", "idle")).wakes).toBeNull();
    expect(stream.notices.filter(({ state }) => state === "offered")).toHaveLength(1);
  });
});

describe("a queue", () => {
  it("changes no status, lease or hold, and is first in, first out", async () => {
    using stream = await idleTaker(one, "fifo-1");
    await stream.say(reports("fifo-1", "busy"));
    const before = await one.agents.get({ agentId: "fifo-1" });
    for (const name of ["fifo-a", "fifo-b", "fifo-c"]) await wake(one, name, "fifo-1", queued);
    const after = await one.agents.get({ agentId: "fifo-1" });
    expect(after).toMatchObject({
      status: "busy",
      leaseExpiresAt: before.leaseExpiresAt,
      hold: before.hold,
      epoch: before.epoch,
    });
    expect(after.revision).toBeGreaterThan(before.revision);
    await stream.say(reports("fifo-1", "idle", after.revision));
    const order: string[] = [];
    for (const name of ["fifo-a", "fifo-b", "fifo-c"]) {
      const offer = await stream.notice(name, "offered");
      order.push(
        ...stream.notices
          .filter(({ state }) => state === "offered")
          .map(({ wakeId }) => wakeId)
          .slice(order.length),
      );
      await stream.say(replies(offer, "accept"));
      // A direct call does not overtake the queue.
      expect(await refusalOf(wake(one, `${name}-direct`, "fifo-1"))).toMatchObject({ reason: "AGENT_BUSY" });
      await stream.say(replies(offer, "finished"));
    }
    expect(order).toEqual(["fifo-a", "fifo-b", "fifo-c"]);
  });

  it.each([
    { what: "a status", how: "status" },
    { what: "a session", how: "session" },
    { what: "a recovery", how: "recovery" },
    { what: "a resumed pause", how: "resume" },
  ] as const)("goes on after $what, soon", async ({ how }) => {
    const agentId = `soon-${how}`;
    using stream = await idleTaker(one, agentId);
    if (how === "status") await stream.say(reports(agentId, "busy"));
    if (how === "session") await stream.say(goodbye(agentId));
    if (how === "recovery")
      await stream.say(reports(agentId, { exhausted: { reason: "rate_limit", retryAfterMs: 1_000 } }));
    if (how === "resume") await one.wakes.pause({ agentId }, undefined, "", one.by);
    const { wake: waiting } = await wake(one, `${agentId}-a`, agentId, queued);
    expect(waiting.state).toBe("queued");
    if (how === "status") await stream.say(reports(agentId, "idle"));
    if (how === "session") await stream.say(alive(agentId));
    if (how === "resume") await one.wakes.resume({ agentId }, one.by);
    await stream.notice(`${agentId}-a`, "offered");
  });

  it("is bounded: 16 wakes of one agent", async () => {
    await one.createAgent("full-1");
    for (let index = 0; index < 16; index += 1) await wake(one, `full-${index}-a`, "full-1", queued);
    expect(await refusalOf(wake(one, "full-16-a", "full-1", queued))).toMatchObject({ reason: "WAKE_QUEUE_FULL" });
    await one.wakes.cancel("full-3-a", "", CALENDAR);
    await wake(one, "full-16-a", "full-1", queued);
  });

  it("offers a wake again after an offer without an answer, up to max_offers", async () => {
    using stream = await idleTaker(one, "offers-1");
    await wake(one, "offers-a", "offers-1", { ...queued, answerWithinMs: 1_000, maxOffers: 2 });
    const lapsed = await untilWake(one, "offers-a", "lapsed");
    expect(lapsed.offers).toBe(2);
    await stream.notice("offers-a", "lapsed");
    const revisions = new Set(
      stream.notices.filter(({ state }) => state === "offered").map((offer) => offer.offerRevision),
    );
    expect(revisions.size).toBe(2);
  });
});

describe("an offer reaches the session that holds the agent", () => {
  it("at whichever replica, with every notification lost", async () => {
    await using silent = await openReplica(testDatabase.url, { notifies: false });
    using here = await idleTaker(silent, "reach-1");
    using there = await idleTaker(one, "reach-2");
    // No feed is woken: polls find the offers.
    await wake(silent, "reach-a", "reach-1");
    await wake(silent, "reach-b", "reach-2");
    await here.notice("reach-a", "offered");
    await there.notice("reach-b", "offered");
  });

  it("when it connects after the offer, and again on each new stream", async () => {
    const first = await idleTaker(one, "reconnect-1", { generation: 1n });
    await wake(one, "reconnect-a", "reconnect-1");
    await first.notice("reconnect-a", "offered");
    first.close();
    using second = await taker(other, "reconnect-1", { generation: 2n });
    const offer = await second.notice("reconnect-a", "offered");
    await second.say(replies(offer, "accept"));
    using third = await taker(one, "reconnect-1", { generation: 3n });
    expect(await third.notice("reconnect-a", "accepted")).toMatchObject({ offerRevision: offer.offerRevision });
  });
});

describe("a repetition changes nothing", () => {
  it("of any call and of any reply", async () => {
    using stream = await idleTaker(one, "repeat-1");
    const content = wakeOf(one, "repeat-a", "repeat-1");
    await one.wakes.wake(content, undefined, CALENDAR);
    const offer = await stream.notice("repeat-a", "offered");
    const unchanged = async (repeat: () => Promise<unknown>): Promise<void> => {
      const [before, story] = [await wakesDigest(one), await storyOf(one, "repeat-1")];
      await repeat();
      await repeat();
      expect(await wakesDigest(one)).toBe(before);
      expect(await storyOf(one, "repeat-1")).toEqual(story);
    };
    await unchanged(() => other.wakes.wake(content, undefined, CALENDAR));
    await stream.say(replies(offer, "accept"));
    await unchanged(() => stream.say(replies(offer, "accept"), replies(offer, "working")));
    await unchanged(() => other.wakes.wake(content, undefined, CALENDAR));
    await one.wakes.cancel("repeat-a", "stop", CALENDAR);
    await unchanged(() => other.wakes.cancel("repeat-a", "stop", CALENDAR));
    await stream.say(replies(offer, "finished", { outcome: "stopped" }));
    await unchanged(() => stream.say(replies(offer, "finished", { outcome: "stopped" })));
    await unchanged(() => one.wakes.cancel("repeat-a", "stop", CALENDAR));
    await unchanged(() => one.wakes.wake(content, undefined, CALENDAR));
    await one.wakes.pause({ agentId: "repeat-1" }, undefined, "", one.by);
    await unchanged(() => one.wakes.resume({ agentId: "other-1" }, one.by).catch(() => undefined));
  });
});

describe("a pause", () => {
  it.each([
    { what: "an agent", target: { agentId: "pause-agent" }, agentId: "pause-agent", claw: "claw-1" },
    { what: "a claw", target: { clawIdentifier: "claw-paused" }, agentId: "pause-claw", claw: "claw-paused" },
  ])("of $what: nothing is offered after it was acknowledged, and heartbeats go on", async ({
    target,
    agentId,
    claw,
  }) => {
    using stream = await idleTaker(one, agentId, { clawIdentifier: claw });
    await other.wakes.pause(target, undefined, "maintenance", { ...one.by, actor: ADMIN.actor });
    expect(await refusalOf(wake(one, `${agentId}-a`, agentId))).toMatchObject({ reason: "AGENT_PAUSED" });
    expect(await wake(one, `${agentId}-b`, agentId, queued)).toMatchObject({
      wake: { state: "queued", reason: "paused" },
    });
    expect(await one.agents.get({ agentId })).toMatchObject({
      status: "idle",
      wakes: { pause: { target, note: "maintenance", actor: ADMIN.actor } },
    });
    expect(await stream.say(reports(agentId, "idle"))).not.toMatchObject([{ refusal: expect.anything() }]);
    await other.wakes.resume(target, one.by);
    await stream.notice(`${agentId}-b`, "offered");
  });

  it("races with calls: each offer was committed before the pause", async () => {
    using stream = await idleTaker(one, "pause-race", { clawIdentifier: "claw-race" });
    for (let round = 0; round < 8; round += 1) {
      const [, called] = await Promise.allSettled([
        other.wakes.pause({ clawIdentifier: "claw-race" }, undefined, "", one.by),
        wake(one, `pause-race-${round}`, "pause-race"),
      ]);
      // After the acknowledgement of the pause.
      expect(await refusalOf(wake(one, `pause-race-${round}-late`, "pause-race"))).toMatchObject({
        reason: expect.stringMatching(/^AGENT_(PAUSED|BUSY)$/),
      });
      if (called.status === "fulfilled") {
        const offer = await stream.notice(`pause-race-${round}`, "offered");
        await stream.say(replies(offer, "finished"));
      }
      await other.wakes.resume({ clawIdentifier: "claw-race" }, one.by);
    }
  });

  it("leaves an open offer as it is, and ends at its time", async () => {
    using stream = await idleTaker(one, "pause-open");
    await wake(one, "pause-open-a", "pause-open");
    await one.wakes.pause({ agentId: "pause-open" }, aheadMs(one, 1_000), "", one.by);
    const offer = await stream.notice("pause-open-a", "offered");
    const [accepted] = await stream.say(replies(offer, "accept"));
    expect(accepted?.wakeResults).toMatchObject([{ state: "accepted" }]);
    await wake(one, "pause-open-b", "pause-open", queued);
    await stream.say(replies(offer, "finished"));
    await stream.notice("pause-open-b", "offered");
  });
});

describe("offers are paced", () => {
  it("by one bucket over all replicas; statuses and heartbeats of the others are unaffected", async () => {
    await using database = await createTestDatabase();
    const limits = { offerLimits: { perSecond: 5, perClaw: 1_000 } };
    await using left = await openReplica(database.url, limits);
    await using right = await openReplica(database.url, limits);
    const names = await left.seedAgents(40, "paced-");
    const streams = [left, right].map((replica, index) =>
      replica.stream({ instanceId: `process-${index}`, takesWakes: true }),
    );
    for (const [index, stream] of streams.entries()) {
      await stream.say(...names.filter((_, place) => place % 2 === index).map(alive));
    }
    await left.wakes.pause({ clawIdentifier: "claw-1" }, undefined, "", left.by);
    await Promise.all(names.map((name, index) => wake(index % 2 === 0 ? left : right, `${name}-a`, name, queued)));
    await left.wakes.resume({ clawIdentifier: "claw-1" }, left.by);
    const offersOf = async () =>
      await left.query<{ at: number }>("SELECT offered_at AS at FROM wakes WHERE offers > 0 ORDER BY offered_at");
    await until("some are offered", async () => (await offersOf()).length >= 15);
    const offers = (await offersOf()).map(({ at }) => at);
    // At most the bucket, and what it gets, within any time.
    for (const [first, from] of offers.entries()) {
      for (const [last, to] of offers.entries()) {
        if (last >= first) expect(last - first + 1).toBeLessThanOrEqual(5 + 5 * ((to - from) / 1_000_000) + 1);
      }
    }
    const waiting = (await left.query<{ agent_id: string }>("SELECT agent_id FROM wakes WHERE state = 'queued'")).map(
      (row) => row.agent_id,
    );
    for (const agentId of waiting.slice(0, 3)) expect((await left.agents.get({ agentId })).status).toBe("idle");
    for (const stream of streams) stream.close();
  });

  it("by the open offers of a claw", async () => {
    await using database = await createTestDatabase();
    await using replica = await openReplica(database.url, { offerLimits: { perSecond: 100, perClaw: 2 } });
    const names = await replica.seedAgents(4, "claw-limit-");
    using stream = replica.stream({ instanceId: "process-1", takesWakes: true });
    await stream.say(...names.map(alive));
    const [a = "", b = "", c = "", d = ""] = names;
    await wake(replica, "limit-a", a);
    await wake(replica, "limit-b", b);
    expect(await refusalOf(wake(replica, "limit-c", c))).toMatchObject({
      reason: "WAKES_LIMITED",
      metadata: { limit: "offersPerClaw" },
      retryAfterMs: expect.any(Number),
    });
    expect(await wake(replica, "limit-d", d, queued)).toMatchObject({ wake: { state: "queued", reason: "limited" } });
    const offer = await stream.notice("limit-a", "offered");
    await stream.say(replies(offer, "accept"));
    // A place is free again.
    await stream.notice("limit-d", "offered");
  });
});

describe("after a failover that lost a claim", () => {
  it("nothing starts: a reply to an unknown wake is not found", async () => {
    using stream = await idleTaker(one, "lost-1");
    await wake(one, "lost-a", "lost-1");
    const offer = await stream.notice("lost-a", "offered");
    // The history of before the offer.
    await one.query("DELETE FROM wakes WHERE wake_id = 'lost-a'");
    await one.query("UPDATE agents SET status = 'idle' WHERE agent_id = 'lost-1'");
    const [result] = await stream.say(replies(offer, "accept"));
    expect(result?.wakeResults).toMatchObject([{ state: null, refusal: { reason: "WAKE_NOT_FOUND" } }]);
  });
});

describe("survivors", () => {
  it("end the offers of a lost replica, and take over its queue", async () => {
    await using database = await createTestDatabase();
    await using survivor = await openReplica(database.url, { intervalMs: 300 });
    const lost = await openReplica(database.url, { intervalMs: 300 });
    const stream = await idleTaker(lost, "survive-1");
    await wake(survivor, "survive-a", "survive-1", { ...queued, answerWithinMs: 1_000, maxOffers: 2 });
    await stream.notice("survive-a", "offered");
    // It neither refreshes its row nor acts on wakes any more.
    using _refresh = lost.gate.hold("refresh-replica");
    using _due = lost.gate.hold("due-wakes");
    using _queue = lost.gate.hold("offerable-wakes");
    using again = await taker(survivor, "survive-1", { generation: 2n });
    const states = async (): Promise<Wake> => await survivor.wakes.get("survive-a");
    await again.notice("survive-a", "offered");
    await until("the wake has ended", async () => {
      // Its leases are short.
      await again.say(alive("survive-1"));
      return isTerminal((await states()).state);
    });
    expect(await states()).toMatchObject({ state: "lapsed", offers: 2 });
    for (const hold of [_refresh, _due, _queue]) hold.release();
    stream.close();
    await lost[Symbol.asyncDispose]();
  });
});
