import { describe, expect, it } from "vitest";
import { createTestDatabase } from "../support/cluster.ts";
import { openReplica } from "../support/replica.ts";
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
