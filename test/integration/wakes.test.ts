import { describe, expect, it } from "vitest";
import { sweepWakes } from "../../src/storage/wake-queries.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { openReplica, storyOf } from "../support/replica.ts";
import { replies } from "../support/replica-stream.ts";
import { CALENDAR, idleTaker, refusalOf, untilWake, wake, wakeOf } from "../support/wake-scene.ts";

describe("a wake", () => {
  it("is offered, accepted, worked on and finished, and its caller learns the outcome", async () => {
    await using database = await createTestDatabase();
    await using replica = await openReplica(database.url);
    using stream = await idleTaker(replica, "bob-1");

    const offered = await wake(replica, "slot-1", "bob-1");
    expect(offered).toMatchObject({
      wake: { state: "offered", offers: 1, reason: null },
      agent: { status: "busy", wakes: { open: { wakeId: "slot-1", state: "offered" } } },
    });
    const offer = await stream.notice("slot-1", "offered");
    expect(offer).toMatchObject({ agentId: "bob-1", offerRevision: offered.wake.offerRevision, claim: "busy" });
    expect(new TextDecoder().decode(offer.payload ?? undefined)).toBe("work of slot-1");

    const [accepted] = await stream.say(replies(offer, "accept"));
    expect(accepted?.wakeResults).toEqual([{ wakeId: "slot-1", state: "accepted", refusal: null }]);
    await untilWake(replica, "slot-1", "accepted");

    const [finished] = await stream.say(replies(offer, "finished", { outcome: "succeeded", note: "done" }));
    expect(finished).toMatchObject({ status: "idle", wakeResults: [{ state: "finished" }] });
    expect(await replica.wakes.get("slot-1")).toMatchObject({
      state: "finished",
      outcome: "succeeded",
      note: "done",
      acceptedBy: "process-1",
      payload: null,
    });
  });

  it("is refused while the agent has another one", async () => {
    await using database = await createTestDatabase();
    await using replica = await openReplica(database.url);
    using _ = await idleTaker(replica, "bob-1");
    await wake(replica, "slot-1", "bob-1");
    const refusal = await refusalOf(replica.wakes.wake(wakeOf(replica, "slot-2", "bob-1"), undefined, CALENDAR));
    expect(refusal).toMatchObject({ reason: "AGENT_BUSY", metadata: { wakeId: "slot-1" } });
  });
});

describe("retention", () => {
  it("removes wakes a while after their end, and no sooner than they expire", async () => {
    await using database = await createTestDatabase();
    await using replica = await openReplica(database.url);
    using _ = await idleTaker(replica, "bob-1");
    const wakeIds = ["old", "recent", "unexpired", "open"];
    for (const wakeId of wakeIds) await wake(replica, wakeId, "bob-1", { ifUnavailable: "queue" });
    for (const wakeId of wakeIds.slice(0, 3)) await replica.wakes.cancel(wakeId, "", CALENDAR);
    const past = "clock_timestamp() - interval '2 hours'";
    await replica.query(`UPDATE wakes SET ended_at = ${past} WHERE wake_id IN ('old', 'unexpired')`);
    await replica.query(`UPDATE wakes SET expires_at = ${past} WHERE wake_id IN ('old', 'recent')`);
    expect(await sweepWakes(replica.database, 3_600_000)).toBe(1);
    expect(await refusalOf(replica.wakes.get("old"))).toMatchObject({ reason: "WAKE_NOT_FOUND" });
    for (const wakeId of wakeIds.slice(1)) expect((await replica.wakes.get(wakeId)).wakeId).toBe(wakeId);
  });
});

describe("a deletion of an agent", () => {
  it("removes its pause, and the notes of its wakes", async () => {
    await using database = await createTestDatabase();
    await using replica = await openReplica(database.url);
    using stream = await idleTaker(replica, "bob-1");
    await wake(replica, "slot-1", "bob-1");
    await stream.say(replies(await stream.notice("slot-1", "offered"), "decline", { note: "a secret" }));
    await replica.wakes.pause({ agentId: "bob-1" }, undefined, "", replica.by);
    await replica.agents.delete("bob-1", replica.by);
    expect(await replica.wakes.get("slot-1")).toMatchObject({ state: "declined", note: "" });
    expect((await replica.wakes.pauses({ after: undefined, limit: 10 })).rows).toEqual([]);
  });
});

describe("a service's claim that the agent does not confirm", () => {
  it("lapses although a wake is queued meanwhile, and the wake is offered", async () => {
    await using database = await createTestDatabase();
    await using replica = await openReplica(database.url);
    using stream = await idleTaker(replica, "bob-1");
    await replica.agents.updateStatus("bob-1", { status: "busy", holdMs: 2_000 }, undefined, replica.by);
    await wake(replica, "slot-1", "bob-1", { ifUnavailable: "queue" });
    await stream.notice("slot-1", "offered");
    expect((await storyOf(replica, "bob-1")).slice(0, 4)).toEqual([
      "service: busy",
      "wake: busy",
      "service: idle",
      "wake: busy",
    ]);
  });
});
