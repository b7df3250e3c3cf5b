import { afterEach, describe, expect, test, vi } from "vitest";
import { paceOf } from "../../src/domain/lease.ts";
import { hearingFor } from "../../src/liveness/membership.ts";
import { refreshReplica } from "../../src/storage/replica-row.ts";
import { createTestDatabase } from "../support/cluster.ts";
import {
  Beating,
  backdate,
  databaseNow,
  expiries,
  fleetGuard,
  KeptLog,
  leaseEnd,
  livenessVersions,
  MS,
  openReplicas,
  rowOf,
  untilExpired,
  untilOffline,
} from "../support/fleet-scene.ts";
import { DatabaseProxy } from "../support/gate-proxy.ts";
import { openReplica, type Replica } from "../support/replica.ts";
import { alive, reports, type TestStream } from "../support/replica-stream.ts";
import { useStallMeter } from "../support/stall-meter.ts";
import { until } from "../support/until.ts";

/** A replica that says nothing for as long is isolated; after twice as long it is adopted. */
const INTERVAL_MS = 400;
const LEASE_MS = 3 * INTERVAL_MS;
/** What a busy machine may be late by; what is promised is checked where nothing was in the way. */
const ALLOWANCE_MS = 2_500;

const stalls = useStallMeter();

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

const PACE = { intervalMs: INTERVAL_MS, firstLeaseMs: 60_000 };

/** Agents that beat once at a replica, and then are silent. @returns when the last of their leases ends */
async function heardOnce(replica: Replica, agentIds: readonly string[]): Promise<number> {
  const stream = replica.stream();
  await stream.say(...agentIds.map(alive));
  return Math.max(...(await Promise.all(agentIds.map((agentId) => leaseEnd(replica, agentId)))));
}

async function untilThen(replica: Replica, moment: number): Promise<void> {
  await until("that moment has come", async () => (await databaseNow(replica)) >= moment, 20_000);
}

function offlineAt(
  expired: readonly { readonly agent_id: string; readonly at: number }[],
  agentIds: readonly string[],
) {
  return expired.filter(({ agent_id }) => agentIds.includes(agent_id)).map(({ at }) => at);
}

describe("a replica that was isolated, while another one listened", () => {
  test("gives its agents a whole lease from when it noticed; the others' end as usual", async () => {
    const log = new KeptLog();
    const [hearing, isolated = hearing] = await openReplicas(undo, PACE, { ...PACE, log });
    const lost = await hearing.seedAgents(20, "of the isolated-");
    const usual = await hearing.seedAgents(20, "of the other-");
    const usualEnd = await heardOnce(hearing, usual);
    await untilThen(hearing, usualEnd - 600 * MS);
    await heardOnce(isolated, lost);
    // Isolated, and not for so long that it is adopted.
    await backdate(isolated, hearing, 1.5 * INTERVAL_MS);
    const guard = await until("it is noticed", async () => (await rowOf(isolated, hearing))?.until ?? undefined);
    expect(guard).toBeGreaterThan((await databaseNow(hearing)) + (LEASE_MS - 500 - stalls.ms) * MS);

    const expired = await untilExpired(hearing, 40, 20_000);
    expect(Math.min(...offlineAt(expired, lost))).toBeGreaterThanOrEqual(guard);
    expect(Math.max(...offlineAt(expired, lost))).toBeLessThan(guard + (ALLOWANCE_MS + stalls.ms) * MS);
    expect(Math.max(...offlineAt(expired, usual))).toBeLessThan(guard + stalls.ms * MS);
    expect(await fleetGuard(hearing)).toBeNull();
    expect(log.saying("this replica was isolated")).toHaveLength(1);
  });

  test("and has not noticed: nobody ends the leases of its agents meanwhile", async () => {
    const [isolated, backstop = isolated] = await openReplicas(undo, PACE, PACE);
    const agentIds = await isolated.seedAgents(5, "unheard-");
    const ended = await heardOnce(isolated, agentIds);
    // Frozen, both: also the one that would adopt. What they know they go on with: their wheels turn.
    using frozen = isolated.gate.hold("refresh-replica");
    using alsoFrozen = backstop.gate.hold("refresh-replica");
    await Promise.all([frozen.arrived(), alsoFrozen.arrived()]);
    using tried = backstop.gate.hold("commit-changes", "after", 3);
    for (const agentId of agentIds) await backstop.watchLease(agentId);
    await tried.arrived();
    tried.release();
    await untilThen(isolated, ended + 2 * LEASE_MS * MS);
    expect(await expiries(isolated)).toEqual([]);
    for (const agentId of agentIds) expect(await isolated.agents.get({ agentId })).toMatchObject({ status: "idle" });

    // Nobody has listened: the whole fleet is given the time.
    frozen.release();
    alsoFrozen.release();
    const guard = await until("it is noticed", async () => (await fleetGuard(isolated)) ?? undefined);
    // The other replica may have noticed first.
    await until("this replica takes streams again", () => !isolated.cutOff);
    using stream = isolated.stream();
    using _beating = new Beating(() => stream, agentIds.slice(0, 2), 100);
    const gone = await untilExpired(isolated, 3, 20_000);
    expect(Math.min(...gone.map(({ at }) => at))).toBeGreaterThanOrEqual(guard);
    expect(gone.map(({ agent_id }) => agent_id).toSorted()).toEqual(agentIds.slice(2));
  });

  test("its agents are adopted, and no row of an agent is written: by adoption, by adoption anew, by waking up", async () => {
    // Ten seconds: no lease ends meanwhile.
    const idle = { started: false };
    const [watcher, dead = watcher, adopter = watcher] = await openReplicas(undo, idle, idle, {});
    const agentIds = await watcher.seedAgents(50, "calm-");
    const beat = dead.stream();
    await beat.say(...agentIds.map(alive));
    // One of the adopter's own, for whose sake it is not forgotten.
    const [own = ""] = await watcher.seedAgents(1, "own-");
    await adopter.stream().say(alive(own));
    const before = await livenessVersions(watcher);

    await backdate(dead, watcher, 60_000);
    const adopted = await until("it is adopted", async () => {
      const row = await rowOf(dead, watcher);
      return row?.adopted_by === adopter.number && row;
    });
    expect(adopted.until).toBeGreaterThan((await databaseNow(watcher)) + 25_000_000);
    await until("the adopter watches", () => adopter.liveness.statistics().agents === 51);

    // The adopter freezes for longer than it may; the next one takes both.
    using frozen = adopter.gate.hold("refresh-replica");
    await frozen.arrived();
    await backdate(adopter, watcher, 60_000);
    const heir = undo.use(await openReplica(watcher.url));
    await until("both are adopted", async () => {
      const rows = [await rowOf(dead, watcher), await rowOf(adopter, watcher)];
      return rows.every((row) => row?.adopted_by === heir.number);
    });
    // The adopter's outage is given back, too: a whole lease from the adoption anew.
    expect((await rowOf(dead, watcher))?.until).toBeGreaterThan(adopted.until ?? Number.POSITIVE_INFINITY);
    expect((await rowOf(dead, watcher))?.until).toBeGreaterThan((await databaseNow(watcher)) + 25_000_000);
    await until("the heir watches", () => heir.liveness.statistics().agents === 51);

    // It wakes up: itself, not what it had adopted.
    frozen.release();
    await until("it is its own again", async () => (await rowOf(adopter, watcher))?.adopted_by === null);
    expect((await rowOf(dead, watcher))?.adopted_by).toBe(heir.number);
    expect(await livenessVersions(watcher)).toEqual(before);
    expect(await expiries(watcher)).toEqual([]);
  });

  test("its agents are not watched any more by who had adopted it, once it is awake", async () => {
    const [adopter, sleeper = adopter] = await openReplicas(undo, PACE, { ...PACE, started: false });
    const agentIds = await adopter.seedAgents(10, "awakened-");
    using stream = sleeper.stream();
    using _beating = new Beating(() => stream, agentIds, 100);
    await until("they are held, by leases as they are here", () => stream.acknowledged > 1n);
    await backdate(sleeper, adopter, 60_000);
    await until("they are watched", () => adopter.liveness.statistics().agents === 10);
    await sleeper.liveness.start();
    await until("it is its own again", async () => (await rowOf(sleeper, adopter))?.adopted_by === null);
    await until("they are watched no more", () => adopter.liveness.statistics().agents === 0, 20_000);
    expect(await expiries(adopter)).toEqual([]);
  });

  test("is adopted for good, also where the answer to that is lost", async () => {
    const [adopter, dead = adopter] = await openReplicas(undo, PACE, { ...PACE, started: false });
    const agentIds = await adopter.seedAgents(10, "answer lost-");
    await heardOnce(dead, agentIds);
    using pages = adopter.gate.hold("adopted-leases", "before", 1);
    adopter.gate.loseAnswer("adopt-replicas");
    await backdate(dead, adopter, 60_000);
    await pages.arrived();
    adopter.gate.loseAnswer("adopted-leases");
    pages.release();
    const guard = await until("it is adopted", async () => (await rowOf(dead, adopter))?.until ?? undefined);
    const expired = await untilExpired(adopter, 10, 20_000);
    expect(Math.min(...expired.map(({ at }) => at))).toBeGreaterThanOrEqual(guard);
    expect(Math.max(...expired.map(({ at }) => at))).toBeLessThan(guard + (ALLOWANCE_MS + stalls.ms) * MS);
    await until("it is forgotten", async () => (await rowOf(dead, adopter)) === undefined);
  });
});

describe("a replica that is cut off from the database, while another one is not", () => {
  test("keeps its agents, asks its streams to go elsewhere once, and takes up again what was its own", async () => {
    const { url } = undo.use(await createTestDatabase());
    const proxy = undo.use(await DatabaseProxy.open(url));
    const log = new KeptLog();
    // A lease that is longer than it may take to try the database again.
    const fine = undo.use(await openReplica(url, { intervalMs: 1_000 }));
    const cut = undo.use(await openReplica(proxy.url, { intervalMs: 1_000, log }));
    const [stays = "", leaves = "", silent = "", elsewhere = ""] = await fine.seedAgents(4, "cut off-");
    using stream = cut.stream({ instanceId: "claw process", generation: 1n });
    const asked = vi.spyOn(stream.session, "drain");
    using _stays = new Beating(() => stream, [stays], 100);
    let now: TestStream = stream;
    using _leaves = new Beating(() => now, [leaves], 100);
    await heardOnce(cut, [silent]);
    const usual = await heardOnce(fine, [elsewhere]);
    await until("they are held", () => stream.acknowledged > 1n);

    proxy.cut();
    await until("its streams are asked to go elsewhere", () => asked.mock.calls.length === 1);
    expect(asked.mock.calls[0]?.[0]).toBeLessThanOrEqual(1_000);
    using other = fine.stream({ instanceId: "claw process", generation: 2n });
    now = other;
    const guard = await until("it is adopted", async () => {
      const row = await rowOf(cut, fine);
      return row?.adopted_by === fine.number ? row.until : undefined;
    });
    // What beats at the one that is cut off is not heard by anybody, for longer than its lease.
    await untilThen(fine, Math.max(usual, await leaseEnd(fine, stays)) + 300 * MS);
    expect(await databaseNow(fine)).toBeLessThan(guard);
    expect((await expiries(fine)).map(({ agent_id }) => agent_id)).toEqual([elsewhere]);
    proxy.mend();
    await until("it is its own again", async () => (await rowOf(cut, fine))?.adopted_by === null, 20_000);

    const gone = await untilOffline(fine, silent, 20_000);
    expect(gone.occurredAt).toBeGreaterThanOrEqual(guard);
    expect((await untilOffline(fine, elsewhere)).occurredAt).toBeLessThan(usual + (ALLOWANCE_MS + stalls.ms) * MS);
    const acknowledged = stream.acknowledged;
    await until("its beats are acknowledged", () => stream.acknowledged > acknowledged + 5n, 20_000);
    expect((await expiries(fine)).map(({ agent_id }) => agent_id).toSorted()).toEqual([elsewhere, silent].toSorted());
    expect(await fine.agents.get({ agentId: leaves })).toMatchObject({ status: "idle", replicaId: fine.number });
    expect(asked).toHaveBeenCalledTimes(1);
    expect(log.saying("streams are asked to try other replicas")).toHaveLength(1);
  });

  test("only with the connections of its heartbeats, is as isolated as any", async () => {
    const [fine, stuck = fine] = await openReplicas(undo, PACE, PACE);
    const agentIds = await fine.seedAgents(10, "stuck-");
    using stream = stuck.stream();
    const asked = vi.spyOn(stream.session, "drain");
    using _beating = new Beating(() => stream, agentIds, 100);
    await until("they are held", () => stream.acknowledged > 1n);
    using held = stuck.gate.hold("renew-leases");
    await held.arrived();
    const end = Math.max(...(await Promise.all(agentIds.map((agentId) => leaseEnd(fine, agentId)))));
    await until("its streams are asked to go elsewhere", () => asked.mock.calls.length === 1);
    await untilThen(fine, end + 300 * MS);
    expect(await expiries(fine)).toEqual([]);
    held.release();
    const acknowledged = stream.acknowledged;
    await until("its beats are acknowledged", () => stream.acknowledged > acknowledged + 5n);
    await until("it is its own", async () => (await rowOf(stuck, fine))?.adopted_by === null);
    expect(await expiries(fine)).toEqual([]);
  });

  test("is asked again the next time", async () => {
    const { url } = undo.use(await createTestDatabase());
    const proxy = undo.use(await DatabaseProxy.open(url));
    const cut = undo.use(await openReplica(proxy.url, { intervalMs: 200 }));
    using stream = cut.stream();
    const asked = vi.spyOn(stream.session, "drain");
    for (const time of [1, 2]) {
      proxy.cut();
      await until("it is asked", () => asked.mock.calls.length === time);
      proxy.mend();
      await until(
        "it can write",
        async () => (await cut.createAgent(`time ${time}`).catch(() => undefined)) !== undefined,
      );
      const [agent] = [`time ${time}`];
      await stream.say(alive(agent));
      await until("it says that it listens", async () => {
        const [row] = await cut.query<{ heard: boolean }>(
          "SELECT seen_at > clock_timestamp() - interval '150 milliseconds' AS heard FROM replicas",
        );
        return row?.heard;
      });
    }
  });
});

describe("a replica that has adopted another one", () => {
  test("loses its database for longer than the adoption guards: no agent that keeps trying goes offline", async () => {
    const { url } = undo.use(await createTestDatabase());
    const proxy = undo.use(await DatabaseProxy.open(url));
    const dead = undo.use(await openReplica(url, { ...PACE, started: false }));
    const adopter = undo.use(await openReplica(proxy.url, PACE));
    undo.defer(() => proxy.mend());
    const agentIds = await dead.seedAgents(20, "orphaned-");
    const trying = agentIds.slice(0, 10);
    await heardOnce(dead, agentIds);
    await backdate(dead, dead, 60_000);
    const guard = await until("it is adopted", async () => (await rowOf(dead, dead))?.until ?? undefined);
    await until("the adopter watches", () => adopter.liveness.statistics().agents >= 20);
    proxy.cut();
    await untilThen(dead, guard + 2 * LEASE_MS * MS);
    // What it knew ends leases as soon as the database is back; that it was isolated it says later.
    using refresh = adopter.gate.hold("refresh-replica");
    using asked = adopter.gate.hold("commit-changes", "after", 1);
    proxy.mend();
    await asked.arrived();
    expect(await expiries(dead)).toEqual([]);
    asked.release();
    refresh.release();
    const back = await until("it has noticed", async () => (await fleetGuard(dead)) ?? undefined);
    using stream = await until("a stream is taken", () => {
      try {
        return adopter.stream();
      } catch {
        return undefined;
      }
    });
    using _beating = new Beating(() => stream, trying, 100);
    const expired = await untilExpired(dead, 10, 20_000);
    expect(expired.map(({ agent_id }) => agent_id).toSorted()).toEqual(agentIds.slice(10).toSorted());
    expect(Math.min(...expired.map(({ at }) => at))).toBeGreaterThanOrEqual(back);
    expect(Math.max(...expired.map(({ at }) => at))).toBeLessThan(back + (ALLOWANCE_MS + stalls.ms) * MS);
  });

  test("watches agents that it held meanwhile, where it returned and was adopted again between two looks", async () => {
    const [adopter, returning = adopter] = await openReplicas(undo, PACE, { ...PACE, started: false });
    const before = await adopter.seedAgents(2, "before-");
    const after = await adopter.seedAgents(3, "after-");
    await heardOnce(returning, before);
    await backdate(returning, adopter, 60_000);
    await until("it is adopted", async () => (await rowOf(returning, adopter))?.adopted_by === adopter.number);
    await until("the adopter watches", () => adopter.liveness.statistics().agents === 2);
    using frozen = adopter.gate.hold("refresh-replica");
    await frozen.arrived();
    await refreshReplica(returning.database, returning.number, hearingFor(paceOf(INTERVAL_MS)));
    await heardOnce(returning, after);
    await backdate(returning, adopter, 60_000);
    frozen.release();
    await until("the adopter watches all", () => adopter.liveness.statistics().agents === 5, 5_000);
  });
});

describe("when all were isolated, the whole fleet is given the time", () => {
  test("where the database was away from all of them", async () => {
    const { url } = undo.use(await createTestDatabase());
    const proxy = undo.use(await DatabaseProxy.open(url));
    const one = undo.use(await openReplica(proxy.url, PACE));
    const two = undo.use(await openReplica(proxy.url, PACE));
    const direct = undo.use(await openReplica(url, { started: false, listens: false }));
    // It is there for the test's own statements, and listens to nobody.
    await direct.query("DELETE FROM replicas WHERE id = $1", direct.number);
    const lively = await direct.seedAgents(10, "lively-");
    const silent = await direct.seedAgents(10, "silent-");
    using stream = one.stream();
    using other = two.stream();
    using _beating = new Beating(() => stream, lively.slice(0, 5), 100);
    using _beatingToo = new Beating(() => other, lively.slice(5), 100);
    const end = Math.max(await heardOnce(one, silent.slice(0, 5)), await heardOnce(two, silent.slice(5)));
    await until("all are held", () => stream.acknowledged > 1n && other.acknowledged > 1n);
    proxy.cut();
    await untilThen(direct, end + LEASE_MS * MS);
    const mended = await databaseNow(direct);
    proxy.mend();
    const expired = await untilExpired(direct, 10, 20_000);
    expect(expired.map(({ agent_id }) => agent_id).toSorted()).toEqual(silent.toSorted());
    expect(await fleetGuard(direct)).toBeGreaterThan(mended + LEASE_MS * MS);
    expect(Math.min(...expired.map(({ at }) => at))).toBeGreaterThanOrEqual(mended + LEASE_MS * MS);
    const acknowledged = stream.acknowledged;
    await until("it goes on", () => stream.acknowledged > acknowledged + 5n);
    expect(await expiries(direct)).toHaveLength(10);
  });

  test("where its event loop was blocked for longer than a lease", async () => {
    const [replica] = await openReplicas(undo, PACE);
    const agentIds = await replica.seedAgents(20, "blocked-");
    await heardOnce(replica, agentIds);
    const stream = replica.stream();
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2 * LEASE_MS);
    const awake = await databaseNow(replica);
    using _beating = new Beating(() => stream, agentIds.slice(0, 10), 100);
    const expired = await untilExpired(replica, 10, 20_000);
    expect(expired.map(({ agent_id }) => agent_id).toSorted()).toEqual(agentIds.slice(10).toSorted());
    expect(Math.min(...expired.map(({ at }) => at))).toBeGreaterThanOrEqual(awake + (LEASE_MS - 250) * MS);
    expect(Math.max(...expired.map(({ at }) => at))).toBeLessThan(awake + (LEASE_MS + ALLOWANCE_MS + stalls.ms) * MS);
  });

  test.each(["stopped in order", "was killed"])("where the only replica %s and another one starts", async (how) => {
    const { url } = undo.use(await createTestDatabase());
    const former = await openReplica(url, { ...PACE, started: false });
    const agentIds = await former.seedAgents(20, "outlives-");
    const end = await heardOnce(former, agentIds);
    await untilThen(former, end + LEASE_MS * MS);
    if (how === "stopped in order") await former[Symbol.asyncDispose]();
    else undo.use(former);

    const next = undo.use(await openReplica(url, PACE));
    const started = await databaseNow(next);
    const guard = await fleetGuard(next);
    expect(guard).toBeGreaterThan(started + (LEASE_MS - 1_000 - stalls.ms) * MS);
    using stream = next.stream();
    using _beating = new Beating(() => stream, agentIds.slice(0, 10), 100);
    const expired = await untilExpired(next, 10, 20_000);
    expect(expired.map(({ agent_id }) => agent_id).toSorted()).toEqual(agentIds.slice(10).toSorted());
    expect(Math.min(...expired.map(({ at }) => at))).toBeGreaterThanOrEqual(guard ?? Number.POSITIVE_INFINITY);
  });

  test("where the next one starts before anybody could call the last one isolated", async () => {
    const { url } = undo.use(await createTestDatabase());
    const killed = undo.use(await openReplica(url, { ...PACE, started: false }));
    const agentIds = await killed.seedAgents(10, "at once-");
    await heardOnce(killed, agentIds);
    // Heard of in time, however long the next one takes to start.
    await backdate(killed, killed, -3_000);
    const next = undo.use(await openReplica(url, PACE));
    expect(await fleetGuard(next)).toBeNull();
    const guard = await until("it is adopted", async () => (await rowOf(killed, next))?.until ?? undefined, 10_000);
    expect(await expiries(next)).toEqual([]);
    const expired = await untilExpired(next, 10, 20_000);
    expect(Math.min(...expired.map(({ at }) => at))).toBeGreaterThanOrEqual(guard);
    expect(Math.max(...expired.map(({ at }) => at))).toBeLessThan(guard + (ALLOWANCE_MS + stalls.ms) * MS);
  });

  test("and no time is given where nothing has a lease, or somebody listened", async () => {
    const { url } = undo.use(await createTestDatabase());
    const first = undo.use(await openReplica(url, PACE));
    expect(await fleetGuard(first)).toBeNull();
    await first.createAgent("there");
    undo.use(await openReplica(url, PACE));
    expect(await fleetGuard(first)).toBeNull();
  });
});

test("an agent that beats is never offline, whatever its replicas go through; it may report all the while", async () => {
  const [one, two = one, three = one] = await openReplicas(undo, PACE, PACE, PACE);
  const agentIds = await one.seedAgents(10, "through it all-");
  const streams = [one.stream(), two.stream(), three.stream()];
  let at = 0;
  const current = () => streams[at % 3] ?? streams[0];
  using _beating = new Beating(() => current() ?? one.stream(), agentIds, 100);
  for (let round = 0; round < 6; round++) {
    const replica = [one, two, three][round % 3] ?? one;
    using frozen = replica.gate.hold("refresh-replica");
    await frozen.arrived();
    await backdate(replica, one, round % 2 === 0 ? 600 : 60_000);
    at += 1;
    await current()?.say(...agentIds.map((agentId) => reports(agentId, round % 2 === 0 ? "busy" : "idle")));
    await untilThen(one, (await databaseNow(one)) + 700 * MS);
    frozen.release();
  }
  expect(await expiries(one)).toEqual([]);
});
