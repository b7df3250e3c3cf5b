import { afterEach, describe, expect, test, vi } from "vitest";
import { createTestDatabase } from "../support/cluster.ts";
import { openPair, tryStream, untilRefused } from "../support/cut-off-scene.ts";
import { Beating, databaseNow, expiries, fleetGuard, leaseEnd, MS } from "../support/fleet-scene.ts";
import { DatabaseProxy } from "../support/gate-proxy.ts";
import { openReplica, type Replica } from "../support/replica.ts";
import { alive } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

const INTERVAL_MS = 1_000;
const PACE = { intervalMs: INTERVAL_MS };
const PROCESS = { instanceId: "claw process" };

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

describe("a replica that has detected its loss of the database", () => {
  test("drains a stream again that brings another agent, which the replica cannot claim", async () => {
    const { fine, cut, proxy } = await openPair(undo, PACE);
    const [held = "", added = ""] = await fine.seedAgents(2, "added-");
    using standing = cut.stream();
    await standing.say(alive(held));
    proxy.cut();
    const asked = vi.spyOn(standing.session, "drain");
    await until("it is asked", () => asked.mock.calls.length === 1);
    standing.send(alive(held));
    expect(asked).toHaveBeenCalledTimes(1);
    standing.send(alive(added));
    expect(asked).toHaveBeenCalledTimes(2);
    expect(asked.mock.lastCall?.[0]).toBeLessThanOrEqual(INTERVAL_MS / 4);
  });

  test("never lets an agent go offline that follows its drains, though the agent tries this replica first", async () => {
    const { fine, cut, proxy } = await openPair(undo, PACE);
    const [agentId = ""] = await fine.seedAgents(1, "sent around-");
    let generation = 0n;
    let now = fine.stream({ ...PROCESS, generation: ++generation });
    using _beating = new Beating(() => now, [agentId], INTERVAL_MS);
    await until("it is held", () => now.acknowledged > 0n);
    const go = (to: Replica): void => {
      now.close();
      now = tryStream(to, { ...PROCESS, generation: ++generation }) ?? now;
      now.send(alive(agentId));
    };
    proxy.cut();
    go(cut);
    const since = performance.now();
    let moved = 0;
    // Two leases long: after each drain the agent tries the isolated replica again, then the other one.
    while (performance.now() - since < 6 * INTERVAL_MS) {
      if (now.reconnectWithinMs !== undefined || now.session.closed) {
        moved += 1;
        go(moved % 2 === 0 ? cut : fine);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(moved).toBeGreaterThan(0);
    expect(now.acknowledged).toBeGreaterThan(0n);
    now.close();
    expect(await expiries(fine)).toEqual([]);
  });
});

describe("when all replicas lose the database", () => {
  test("they reject a fleet that reconnects, and give it one lease when the database is back", async () => {
    const { url } = undo.use(await createTestDatabase());
    const proxy = undo.use(await DatabaseProxy.open(url));
    const direct = undo.use(await openReplica(url, { started: false, listens: false }));
    // This replica runs only the statements of the test, and receives no heartbeats.
    await direct.query("DELETE FROM replicas WHERE id = $1", direct.number);
    const one = undo.use(await openReplica(proxy.url, PACE));
    const two = undo.use(await openReplica(proxy.url, PACE));
    const agentIds = await direct.seedAgents(20, "refused everywhere-");
    using former = one.stream({ ...PROCESS, generation: 1n });
    await former.say(...agentIds.map(alive));
    const end = await leaseEnd(direct, agentIds[0] ?? "");

    proxy.cut();
    await untilRefused(one);
    await untilRefused(two);
    former.close();
    await until("their leases have ended", async () => (await databaseNow(direct)) > end + 500 * MS);
    proxy.mend();
    const latter = await until(
      "a stream is taken again",
      () => tryStream(two, { ...PROCESS, generation: 2n }) ?? tryStream(one, { ...PROCESS, generation: 2n }),
      15_000,
    );
    using _latter = latter;
    expect(await fleetGuard(direct)).toBeGreaterThan(await databaseNow(direct));
    await latter.say(...agentIds.map(alive));
    await until("they are held by it", async () => {
      const { replicaId } = await direct.agents.get({ agentId: agentIds[0] ?? "" });
      return replicaId === two.number || replicaId === one.number;
    });
    expect(await expiries(direct)).toEqual([]);
  });
});
