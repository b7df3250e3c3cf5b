import { afterEach, describe, expect, test, vi } from "vitest";
import { tryStream } from "../support/cut-off-scene.ts";
import {
  Beating,
  databaseNow,
  expiries,
  leaseEnd,
  MS,
  openReplicas,
  rowOf,
  untilOffline,
} from "../support/fleet-scene.ts";
import type { Replica } from "../support/replica.ts";
import { alive, reports } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

const INTERVAL_MS = 400;
const PACE = { intervalMs: INTERVAL_MS };

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

/** Expires the leases of both agents, and waits until the one without a heartbeat is offline. */
async function endLeases(at: Replica, heard: string, unheard: string): Promise<void> {
  await at.backdateLease(heard);
  await at.watchLease(heard);
  await at.backdateLease(unheard);
  await at.watchLease(unheard);
  await untilOffline(at, unheard);
}

describe("an agent with a pending heartbeat", () => {
  test("keeps its lease while the beat waits to be written", async () => {
    const [replica] = await openReplicas(undo, {});
    const [heard = "", unheard = ""] = await replica.seedAgents(2, "unwritten-");
    using stream = replica.stream();
    await stream.say(alive(heard), alive(unheard));
    using hold = replica.gate.hold("renew-leases");
    const sequence = stream.send(alive(heard));
    await hold.arrived();
    await endLeases(replica, heard, unheard);
    expect((await expiries(replica)).map(({ agent_id }) => agent_id)).toEqual([unheard]);
    hold.release();
    await stream.acknowledgedUpTo(sequence);
    expect(await leaseEnd(replica, heard)).toBeGreaterThan(await databaseNow(replica));
    expect(await expiries(replica)).toHaveLength(1);
  });

  test("keeps its lease while its stream waits to claim it", async () => {
    const [replica] = await openReplicas(undo, {});
    const [heard = "", unheard = ""] = await replica.seedAgents(2, "unclaimed-");
    using former = replica.stream();
    await former.say(alive(heard), alive(unheard));
    former.close();
    using hold = replica.gate.hold("claim-agents");
    using stream = replica.stream();
    const sequence = stream.send(reports(heard, "busy"));
    await hold.arrived();
    await endLeases(replica, heard, unheard);
    expect((await expiries(replica)).map(({ agent_id }) => agent_id)).toEqual([unheard]);
    hold.release();
    await stream.acknowledgedUpTo(sequence);
    expect(await replica.agents.get({ agentId: heard })).toMatchObject({ status: "busy", held: true });
  });

  test("loses its lease as usual when the waiting stream is gone", async () => {
    const [replica] = await openReplicas(undo, {});
    const [agentId = ""] = await replica.seedAgents(1, "gone-");
    await replica.watchLease(agentId);
    using hold = replica.gate.hold("claim-agents", "before", 1);
    const [blocking = ""] = await replica.seedAgents(1, "blocking-");
    using stream = replica.stream();
    stream.send(alive(blocking));
    await hold.arrived();
    const gone = replica.stream();
    gone.send(alive(agentId));
    gone.close();
    await replica.backdateLease(agentId);
    await replica.watchLease(agentId);
    hold.release();
    await untilOffline(replica, agentId);
  });
});

describe("a replica that cannot write", () => {
  test.each([
    ["changes", "commit-changes"],
    ["claims", "claim-agents"],
  ])("counts as isolated although its other connections work: %s", async (what, statement) => {
    const [fine, stuck = fine] = await openReplicas(undo, PACE, PACE);
    const [agentId = "", calm = "", comes = ""] = await fine.seedAgents(3, `stuck ${what}-`);
    using stream = await until("it takes streams", () => tryStream(stuck));
    await stream.say(alive(agentId), alive(calm));
    using held = stuck.gate.hold(statement);
    const asked = vi.spyOn(stream.session, "drain");
    using _beating = new Beating(() => stream, [calm], 100);
    if (what === "changes") stream.send(reports(agentId, "busy"));
    else stream.send(alive(agentId), alive(comes));
    await held.arrived();
    const end = await leaseEnd(fine, agentId);
    await until("its streams are asked to go elsewhere", () => asked.mock.calls.length > 0);
    expect(() => stuck.stream()).toThrow(expect.objectContaining({ reason: "DATABASE_UNAVAILABLE" }));
    expect([stuck.cutOff, fine.cutOff]).toEqual([true, false]);
    // As the scan of all leases would see it.
    await until("its lease has ended", async () => (await databaseNow(fine)) > end + 100 * MS);
    await fine.watchLease(agentId);
    await until("it is adopted", async () => (await rowOf(stuck, fine))?.adopted_by === fine.number);
    expect(await expiries(fine)).toEqual([]);
    held.release();
    await until("it is its own again", async () => (await rowOf(stuck, fine))?.adopted_by === null);
    await stream.acknowledgedUpTo(2n);
    await until("new streams are taken", () => {
      stuck.stream().close();
      return true;
    });
    expect(stuck.cutOff).toBe(false);
    expect(await expiries(fine)).toEqual([]);
  });
});
