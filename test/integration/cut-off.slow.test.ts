import { afterEach, describe, expect, test, vi } from "vitest";
import { createTestDatabase } from "../support/cluster.ts";
import { Beating, databaseNow, expiries, fleetGuard, leaseEnd, MS, rowOf } from "../support/fleet-scene.ts";
import { DatabaseProxy } from "../support/gate-proxy.ts";
import { openReplica, type Replica } from "../support/replica.ts";
import { alive, type TestStream } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

const INTERVAL_MS = 1_000;
const PACE = { intervalMs: INTERVAL_MS };
const PROCESS = { instanceId: "claw process" };

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

/** Two replicas of one database, of which one goes through a proxy that can be cut. */
async function openPair(): Promise<{ fine: Replica; cut: Replica; proxy: DatabaseProxy }> {
  const { url } = undo.use(await createTestDatabase());
  const proxy = undo.use(await DatabaseProxy.open(url));
  const fine = undo.use(await openReplica(url, PACE));
  const cut = undo.use(await openReplica(proxy.url, PACE));
  // So that it need not wait for its database when it ends.
  undo.defer(() => proxy.mend());
  return { fine, cut, proxy };
}

/** Opens a stream as a client would; undefined where it is refused. */
function tryStream(at: Replica, options: Parameters<Replica["stream"]>[0] = {}): TestStream | undefined {
  try {
    return at.stream(options);
  } catch (error) {
    expect(error).toMatchObject({ reason: "DATABASE_UNAVAILABLE" });
    return undefined;
  }
}

/** Until new streams are refused there. */
async function untilRefused(at: Replica): Promise<void> {
  await until("new streams are refused", () => {
    const stream = tryStream(at);
    stream?.close();
    return stream === undefined;
  });
}

describe("a replica that knows that it is cut off from the database", () => {
  test("refuses new streams, which go elsewhere soon; those that stand stay, and it takes streams when it is back", async () => {
    const { fine, cut, proxy } = await openPair();
    const [held = "", comes = ""] = await fine.seedAgents(2, "refused-");
    using standing = cut.stream();
    using _beating = new Beating(() => standing, [held], 200);
    await until("it is held", () => standing.acknowledged > 0n);
    proxy.cut();
    await untilRefused(cut);

    expect(() => cut.stream(PROCESS)).toThrow(
      expect.objectContaining({ reason: "DATABASE_UNAVAILABLE", retryAfterMs: INTERVAL_MS / 10 }),
    );
    using other = fine.stream(PROCESS);
    expect(await other.say(alive(comes))).toMatchObject([{ status: "idle", refusal: null }]);
    expect(standing.ended).toBe(false);

    proxy.mend();
    const again = await until("it takes streams again", () => tryStream(cut), 10_000);
    using _again = again;
    await again.say(alive(comes));
    const acknowledged = standing.acknowledged;
    await until("the stream that stood goes on", () => standing.acknowledged > acknowledged);
    expect(await expiries(fine)).toEqual([]);
  });

  test("asks streams whose agents it could not claim to leave much sooner than those whose agents it holds", async () => {
    const { fine, cut, proxy } = await openPair();
    const [held = "", comes = ""] = await fine.seedAgents(2, "asked-");
    using standing = cut.stream();
    using _beating = new Beating(() => standing, [held], 200);
    await until("it is held", () => standing.acknowledged > 0n);
    using former = fine.stream({ ...PROCESS, generation: 1n });
    await former.say(alive(comes));
    former.close();

    proxy.cut();
    const random = vi.spyOn(Math, "random").mockReturnValue(1);
    using unclaimed = cut.stream({ ...PROCESS, generation: 2n });
    unclaimed.send(alive(comes));
    await until("both are asked", () => unclaimed.reconnectWithinMs ?? false);
    await until("both are asked", () => standing.reconnectWithinMs ?? false);
    random.mockRestore();
    expect(unclaimed.reconnectWithinMs).toBe(INTERVAL_MS / 4);
    expect(standing.reconnectWithinMs).toBe(INTERVAL_MS);
    // The guard of the deaf one is not this agent's.
    expect(await fine.agents.get({ agentId: comes })).toMatchObject({ replicaId: fine.number });
  });

  test("asks a stream again that brings another agent, which it cannot claim", async () => {
    const { fine, cut, proxy } = await openPair();
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

  test("so an agent that goes wherever it is sent never goes offline, though it comes to the deaf one first", async () => {
    const { fine, cut, proxy } = await openPair();
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
    // Two leases long; whenever it is sent away it tries the deaf one again, then the other.
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

describe("where all replicas are cut off", () => {
  test("a fleet that reconnects meanwhile is refused everywhere, and has a lease to be heard when the database is back", async () => {
    const { url } = undo.use(await createTestDatabase());
    const proxy = undo.use(await DatabaseProxy.open(url));
    const direct = undo.use(await openReplica(url, { started: false, listens: false }));
    // It is there for the test's own statements, and listens to nobody.
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
    await until("their leases have ended", async () => (await databaseNow(direct)) > end + 500 * MS, 10_000);
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

test("a process that did not run for a while is not cut off: it asks nobody to leave, and refuses nobody", async () => {
  const { fine, cut } = await openPair();
  const [agentId = ""] = await fine.seedAgents(1, "blocked-");
  using stream = cut.stream();
  await stream.say(alive(agentId));
  const asked = vi.spyOn(stream.session, "drain");
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1.5 * INTERVAL_MS);
  // The first timers after the block look whether it can write, before anything else could have happened.
  for (let turn = 0; turn < 5; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 30));
    using another = cut.stream();
    await another.say(alive(agentId));
  }
  expect(asked).not.toHaveBeenCalled();
  await until("it listens", async () => (await rowOf(cut, fine))?.adopted_by === null);
});
