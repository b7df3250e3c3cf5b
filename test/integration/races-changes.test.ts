import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Mutation } from "../../src/domain/directories.ts";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { RowLocks } from "../support/gate-locks.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { alive, goodbye, reports } from "../support/replica-stream.ts";
import { refused } from "../support/storage.ts";
import { until } from "../support/until.ts";

let testDatabase: TestDatabase;
/** Watches leases and recovers agents. */
let one: Replica;
/** Starts no work by itself. */
let other: Replica;
let locks: RowLocks;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  [one, other] = await Promise.all([openReplica(testDatabase.url), openReplica(testDatabase.url, { started: false })]);
  locks = await RowLocks.open(testDatabase.url);
});

afterAll(async () => {
  await locks[Symbol.asyncDispose]();
  await Promise.all([one[Symbol.asyncDispose](), other[Symbol.asyncDispose]()]);
  await testDatabase.drop();
});

afterEach(() => locks.rollback());

function by(id: string, content = "content"): Mutation {
  const principal = "service:calendar";
  return { actor: principal, request: { principal, id, fingerprint: content } };
}

describe.each([
  ["the same", () => one],
  ["another", () => other],
])("a flush that arrives after a service's change at %s replica", (where, service) => {
  /**
   * A stream that holds an idle agent, and a flush of its beat on the way; the service's change overtakes it.
   */
  async function overtaken(agentId: string, beat: (agentId: string) => ReturnType<typeof alive>) {
    await one.createAgent(agentId);
    const stream = one.stream();
    await stream.say(alive(agentId));
    using hold = one.gate.hold("renew-leases", "before", 1);
    const sequence = stream.send(beat(agentId));
    await hold.arrived();
    const word = { status: "on_call", holdMs: undefined } as const;
    const claimed = await service().agents.updateStatus(agentId, word, undefined, one.by);
    expect(stream.acknowledged).toBeLessThan(sequence);
    hold.release();
    await stream.acknowledgedUpTo(sequence);
    return { stream, claimed, results: stream.resultsOf(sequence) };
  }

  test("is judged again: a report that does not know of the change is outdated, and renews the lease", async () => {
    const agentId = `repeats at ${where}`;
    const { stream, claimed, results } = await overtaken(agentId, (id) => reports(id, "idle"));
    using _ = stream;
    const { revision } = claimed;
    expect(results).toMatchObject([{ refusal: { reason: "REPORT_OUTDATED" }, status: "on_call", revision }]);
    const renewed = await one.agents.get({ agentId });
    expect(renewed.lastHeartbeat).toBeGreaterThan(claimed.statusChangedAt);
    expect(renewed.leaseExpiresAt).toBeGreaterThan(claimed.leaseExpiresAt ?? 0);

    // Once the agent knows of the change, its own report applies.
    expect(await stream.say(reports(agentId, "busy", revision))).toMatchObject([{ status: "busy", refusal: null }]);
    expect(await storyOf(one, agentId)).toEqual(["service: on_call", "report: busy"]);
  });

  test("is judged again: a beat without a report is applied", async () => {
    const agentId = `alive at ${where}`;
    const { stream, claimed, results } = await overtaken(agentId, alive);
    using _ = stream;
    // It is applied as it was sent; the change is pushed separately.
    expect(results).toEqual([]);
    await until("the stream is told", () => stream.unasked(agentId).length > 0);
    expect(stream.unasked(agentId)).toMatchObject([{ refusal: null, status: "on_call", revision: claimed.revision }]);
    expect((await one.agents.get({ agentId })).lastHeartbeat).toBeGreaterThan(claimed.statusChangedAt);
    expect(await storyOf(one, agentId)).toEqual(["service: on_call"]);
  });

  test("does not stop the goodbye behind it, which is never held off", async () => {
    const agentId = `leaves at ${where}`;
    const { stream } = await overtaken(agentId, alive);
    using _ = stream;
    expect(await stream.say(goodbye(agentId))).toMatchObject([{ status: "offline", refusal: null }]);
    expect(await storyOf(one, agentId)).toEqual(["service: on_call", "goodbye: offline"]);
  });
});

describe("a report at one replica against the recovery at another", () => {
  /** Exhausted, and due at once for a replica that scans: its recovery is judged and waits at the gate. */
  async function recovering(agentId: string) {
    await other.createAgent(agentId);
    const stream = other.stream();
    const [told] = await stream.say(reports(agentId, { exhausted: { reason: "rate_limit", retryAfterMs: 400 } }));
    expect(told).toMatchObject({ status: "exhausted", refusal: null });
    return stream;
  }

  test.each([
    ["works", "report: busy", (id: string) => reports(id, "busy")],
    ["is idle", "report: idle", (id: string) => reports(id, "idle")],
    [
      "is out of money",
      "report: exhausted",
      (id: string) => reports(id, { exhausted: { reason: "billing", retryAfterMs: 60_000 } }),
    ],
  ])("that comes first stays: the agent %s", async (what, story, beat) => {
    const agentId = `report first: ${what}`;
    using hold = one.gate.hold("commit-changes");
    using stream = await recovering(agentId);
    await hold.arrived();
    expect(await stream.say(beat(agentId))).toMatchObject([{ refusal: null }]);
    const reported = await other.agents.get({ agentId });
    hold.release();

    await until("the recovery is decided", () => one.committer.waiting === 0);
    const { status } = await one.agents.updateStatus(agentId, { status: "offline", holdMs: 0 }, undefined, one.by);
    expect(status).toBe("offline");
    expect(await storyOf(one, agentId)).toEqual(["report: exhausted", story, "service: offline"]);
    expect((await other.agents.get({ agentId })).exhaustion).toEqual(reported.exhaustion);
  });

  test("that comes second is judged by the agent that recovered", async () => {
    const agentId = "recovery first";
    using stream = await recovering(agentId);
    await locks.takeCounter();
    await locks.waiting("commit-changes");
    const sequence = stream.send(reports(agentId, "busy"));
    await locks.waiting("commit-changes", 2);
    await locks.commit();

    await stream.acknowledgedUpTo(sequence);
    expect(stream.resultsOf(sequence)).toMatchObject([{ status: "busy", exhaustion: null, refusal: null }]);
    expect(await storyOf(one, agentId)).toEqual(["report: exhausted", "recovery: idle", "report: busy"]);
  });

  test("that names another reason at the same moment is not cleared by it", async () => {
    const agentId = "exhausted anew";
    using stream = await recovering(agentId);
    await locks.takeCounter();
    await locks.waiting("commit-changes");
    const sequence = stream.send(reports(agentId, { exhausted: { reason: "billing", retryAfterMs: 60_000 } }));
    await locks.waiting("commit-changes", 2);
    await locks.commit();

    await stream.acknowledgedUpTo(sequence);
    expect(stream.resultsOf(sequence)).toMatchObject([{ status: "exhausted", exhaustion: { reason: "billing" } }]);
    expect(await storyOf(one, agentId)).toEqual(["report: exhausted", "recovery: idle", "report: exhausted"]);
  });
});

describe("two services with the same expected_revision", () => {
  test.each([
    ["at one replica", () => one],
    ["at two replicas", () => other],
  ])("%s: the first succeeds, the second gets an error with the new revision", async (where, second) => {
    const agentId = `wanted ${where}`;
    const { revision } = await one.createAgent(agentId);
    await locks.takeCounter();
    const first = one.agents.updateStatus(
      agentId,
      { status: "on_call", holdMs: undefined },
      revision,
      by(`a ${where}`),
    );
    await locks.waiting("commit-changes");
    const loser = second().agents.updateStatus(
      agentId,
      { status: "busy", holdMs: undefined },
      revision,
      by(`b ${where}`),
    );
    const lost = expect(loser).rejects.toMatchObject({ name: "Refusal", reason: "REVISION_MISMATCH" });
    if (second() !== one) await locks.waiting("commit-changes", 2);
    await locks.commit();

    const won = await first;
    expect(won.status).toBe("on_call");
    await lost;
    await expect(loser).rejects.toMatchObject(refused("REVISION_MISMATCH", { revision: won.revision.toString() }));
    expect(await storyOf(one, agentId)).toEqual(["service: on_call"]);
  });

  test("both succeed when a beat that changes nothing delays one of them", async () => {
    const agentId = "only renewed";
    const { revision } = await one.createAgent(agentId);
    using stream = one.stream();
    using hold = other.gate.hold("commit-changes");
    const change = other.agents.updateStatus(agentId, { status: "on_call", holdMs: undefined }, revision, by("late"));
    await hold.arrived();
    await stream.say(alive(agentId));
    hold.release();
    expect(await change).toMatchObject({ status: "on_call" });
  });
});

describe("a retry with the same request_id", () => {
  const idle = { status: "on_call", holdMs: undefined } as const;

  test.each([
    ["the same replica", () => one],
    ["another replica", () => other],
  ])("at %s, while the first attempt is under way, gets its response", async (where, second) => {
    const agentId = `retried at ${where}`;
    const { revision } = await one.createAgent(agentId);
    await locks.takeCounter();
    const first = one.agents.updateStatus(agentId, idle, revision, by(`retry at ${where}`));
    await locks.waiting("commit-changes");
    const retry = second().agents.updateStatus(agentId, idle, revision, by(`retry at ${where}`));
    if (second() !== one) await locks.waiting("commit-changes", 2);
    await locks.commit();

    expect(await retry).toEqual(await first);
    expect(await storyOf(one, agentId)).toEqual(["service: on_call"]);
  });

  test("of a request for another agent, while that is under way, is rejected", async () => {
    await one.createAgent("first of two");
    await one.createAgent("second of two");
    await locks.takeCounter();
    const first = one.agents.updateStatus("first of two", idle, undefined, by("one for two", "first"));
    await locks.waiting("commit-changes");
    const reuse = other.agents.updateStatus("second of two", idle, undefined, by("one for two", "second"));
    const refusal = expect(reuse).rejects.toMatchObject({ reason: "REQUEST_ID_REUSED" });
    await locks.waiting("commit-changes", 2);
    await locks.commit();

    await first;
    await refusal;
    expect(await storyOf(one, "second of two")).toEqual([]);
  });

  test("after a lost response looks like the first attempt, not like a lost race", async () => {
    const agentId = "answer lost";
    const { revision } = await one.createAgent(agentId);
    one.gate.loseAnswer("commit-changes");
    // The replica repeats it by itself; a client that repeats it elsewhere gets the same response.
    const answer = await one.agents.updateStatus(agentId, idle, revision, by("lost"));
    expect(answer).toMatchObject({ status: "on_call" });
    expect(await other.agents.updateStatus(agentId, idle, revision, by("lost"))).toEqual(answer);
    await other.agents.updateStatus(agentId, { status: "busy", holdMs: undefined }, answer.revision, by("next"));
    expect(await one.agents.updateStatus(agentId, idle, revision, by("lost"))).toEqual(answer);
    expect(await storyOf(one, agentId)).toEqual(["service: on_call", "service: busy"]);
  });

  test("without a request_id reports a lost response as unknown outcome", async () => {
    const agentId = "in doubt";
    const { revision } = await one.createAgent(agentId);
    one.gate.loseAnswer("commit-changes");
    await expect(one.agents.updateStatus(agentId, idle, revision, one.by)).rejects.toMatchObject({
      reason: "DATABASE_UNAVAILABLE",
      message: expect.stringContaining("may or may not have taken effect"),
    });
    expect(await storyOf(one, agentId)).toEqual(["service: on_call"]);
  });

  test("of a creation, a move and a deletion gets the first response, also from another replica", async () => {
    const { userId } = await one.createAgent("placeholder");
    await one.agents.delete("placeholder", one.by);
    const wanted = { userId, agentId: "made once", clawIdentifier: "claw-1" };
    one.gate.loseAnswer("commit-changes");
    const created = await one.agents.create(wanted, by("creation"));
    expect(await other.agents.create(wanted, by("creation"))).toEqual(created);

    one.gate.loseAnswer("commit-changes");
    const moved = await one.agents.move("made once", "claw-2", by("move"));
    expect(moved.clawIdentifier).toBe("claw-2");
    expect(await other.agents.move("made once", "claw-2", by("move"))).toEqual(moved);

    one.gate.loseAnswer("commit-changes");
    const revision = await one.agents.delete("made once", by("deletion"));
    expect(await other.agents.delete("made once", by("deletion"))).toBe(revision);
    expect(await other.agents.create(wanted, by("creation"))).toEqual(created);
    expect(await storyOf(one, "made once")).toEqual(["moved: idle", "deleted: null"]);
  });
});

describe("a beat whose response is lost with the connection", () => {
  test.each([
    ["report", (id: string) => reports(id, "busy"), ["report: busy"], "busy"],
    [
      "exhaustion without a deadline",
      (id: string) => reports(id, { exhausted: { reason: "rate_limit" } }),
      ["report: exhausted"],
      "exhausted",
    ],
    ["goodbye", goodbye, ["goodbye: offline"], "offline"],
  ] as const)("is applied once, and acknowledged: a %s", async (what, beat, story, status) => {
    const agentId = `lost ${what}`;
    await one.createAgent(agentId);
    using stream = one.stream();
    await stream.say(alive(agentId));
    one.gate.loseAnswer("commit-changes");
    const sequence = stream.send(beat(agentId));
    await stream.acknowledgedUpTo(sequence);
    // The second attempt changes nothing and has no result of its own; the stream gets the change all the same.
    await until("the stream is told", () => stream.results.some((result) => result.status === status));
    expect(stream.results.every(({ refusal }) => refusal === null)).toBe(true);
    expect(await storyOf(one, agentId)).toEqual(story);
  });

  test("is applied once, and acknowledged: a renewal, a claim", async () => {
    const agentId = "lost renewal";
    await one.createAgent(agentId);
    using stream = one.stream();
    one.gate.loseAnswer("claim-agents");
    expect(await stream.say(alive(agentId))).toMatchObject([{ status: "idle", refusal: null }]);
    one.gate.loseAnswer("renew-leases");
    expect(await stream.say(alive(agentId))).toEqual([]);
    expect(await storyOf(one, agentId)).toEqual([]);
  });
});
