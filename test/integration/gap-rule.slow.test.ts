import { afterEach, describe, expect, test, vi } from "vitest";
import { paceOf } from "../../src/domain/lease.ts";
import { isolationTimesFor } from "../../src/liveness/membership.ts";
import { refreshReplica } from "../../src/storage/replica-row.ts";
import { createTestDatabase } from "../support/cluster.ts";
import {
  Beating,
  backdate,
  beatOnce,
  databaseNow,
  expiries,
  fleetGuard,
  KeptLog,
  leaseEnd,
  MS,
  openReplicas,
  rowOf,
  untilExpired,
  untilOffline,
  untilThen,
} from "../support/fleet-scene.ts";
import { DatabaseProxy } from "../support/gate-proxy.ts";
import { openReplica } from "../support/replica.ts";
import { reports, type TestStream } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

/** A replica that is silent for this long is isolated; after twice as long it is adopted. */
const INTERVAL_MS = 400;
const LEASE_MS = 3 * INTERVAL_MS;
/** In milliseconds. A lease that expires later was found by the scan of all leases, which runs each 30 s. */
const PROMPT_MS = 15_000;

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

const PACE = { intervalMs: INTERVAL_MS, firstLeaseMs: 60_000 };

describe("a replica that was isolated while another one was not", () => {
  test("and has not noticed it: no replica expires the leases of its agents meanwhile", async () => {
    const [isolated, backstop = isolated] = await openReplicas(undo, PACE, PACE);
    const agentIds = await isolated.seedAgents(5, "unheard-");
    const ended = await beatOnce(isolated, agentIds);
    // Freezes both, also the one that would adopt. Their lease wheels continue with what they know.
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

    // No replica was up: the whole fleet gets the grace period.
    frozen.release();
    alsoFrozen.release();
    const guard = await until("it is noticed", async () => (await fleetGuard(isolated)) ?? undefined);
    // The other replica may have noticed first.
    await until("this replica takes streams again", () => !isolated.cutOff);
    using stream = isolated.stream();
    using _beating = new Beating(() => stream, agentIds.slice(0, 2), 100);
    const gone = await untilExpired(isolated, 3);
    expect(Math.min(...gone.map(({ at }) => at))).toBeGreaterThanOrEqual(guard);
    expect(gone.map(({ agent_id }) => agent_id).toSorted()).toEqual(agentIds.slice(2));
  });
});

describe("a replica that loses the database while another one does not", () => {
  test("keeps its agents, drains its streams once, and then resumes its own work", async () => {
    const { url } = undo.use(await createTestDatabase());
    const proxy = undo.use(await DatabaseProxy.open(url));
    const log = new KeptLog();
    // A lease longer than the time until the next attempt to reach the database.
    const fine = undo.use(await openReplica(url, { intervalMs: 1_000 }));
    const cut = undo.use(await openReplica(proxy.url, { intervalMs: 1_000, log }));
    const [stays = "", leaves = "", silent = "", elsewhere = ""] = await fine.seedAgents(4, "cut off-");
    using stream = cut.stream({ instanceId: "claw process", generation: 1n });
    const asked = vi.spyOn(stream.session, "drain");
    using _stays = new Beating(() => stream, [stays], 100);
    let now: TestStream = stream;
    using _leaves = new Beating(() => now, [leaves], 100);
    await beatOnce(cut, [silent]);
    const usual = await beatOnce(fine, [elsewhere]);
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
    // No replica records the heartbeats that the isolated one receives, for longer than the lease.
    await untilThen(fine, Math.max(usual, await leaseEnd(fine, stays)) + 300 * MS);
    expect(await databaseNow(fine)).toBeLessThan(guard);
    expect((await expiries(fine)).map(({ agent_id }) => agent_id)).toEqual([elsewhere]);
    proxy.mend();
    await until("it is its own again", async () => (await rowOf(cut, fine))?.adopted_by === null);

    const gone = await untilOffline(fine, silent);
    expect(gone.occurredAt).toBeGreaterThanOrEqual(guard);
    expect((await untilOffline(fine, elsewhere)).occurredAt).toBeLessThan(usual + PROMPT_MS * MS);
    const acknowledged = stream.acknowledged;
    await until("its beats are acknowledged", () => stream.acknowledged > acknowledged + 5n);
    expect((await expiries(fine)).map(({ agent_id }) => agent_id).toSorted()).toEqual([elsewhere, silent].toSorted());
    expect(await fine.agents.get({ agentId: leaves })).toMatchObject({ status: "idle", replicaId: fine.number });
    expect(asked).toHaveBeenCalledTimes(1);
    expect(log.of("replica.cut_off")).toHaveLength(1);
  });
});

describe("a replica that has adopted another one", () => {
  test("loses its database for longer than the guard of the adoption: no agent that retries goes offline", async () => {
    const { url } = undo.use(await createTestDatabase());
    const proxy = undo.use(await DatabaseProxy.open(url));
    const dead = undo.use(await openReplica(url, { ...PACE, started: false }));
    const adopter = undo.use(await openReplica(proxy.url, PACE));
    undo.defer(() => proxy.mend());
    const agentIds = await dead.seedAgents(20, "orphaned-");
    const trying = agentIds.slice(0, 10);
    await beatOnce(dead, agentIds);
    await backdate(dead, dead, 60_000);
    const guard = await until("it is adopted", async () => (await rowOf(dead, dead))?.until ?? undefined);
    await until("the adopter watches", () => adopter.liveness.statistics().agents >= 20);
    proxy.cut();
    await untilThen(dead, guard + 2 * LEASE_MS * MS);
    // It would expire leases by its own data as soon as the database is back; it reports its isolation later.
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
    const expired = await untilExpired(dead, 10);
    expect(expired.map(({ agent_id }) => agent_id).toSorted()).toEqual(agentIds.slice(10).toSorted());
    expect(Math.min(...expired.map(({ at }) => at))).toBeGreaterThanOrEqual(back);
    expect(Math.max(...expired.map(({ at }) => at))).toBeLessThan(back + PROMPT_MS * MS);
  });

  test("watches agents that it held, when it returned and was adopted again between two scans", async () => {
    const [adopter, returning = adopter] = await openReplicas(undo, PACE, { ...PACE, started: false });
    const before = await adopter.seedAgents(2, "before-");
    const after = await adopter.seedAgents(3, "after-");
    await beatOnce(returning, before);
    await backdate(returning, adopter, 60_000);
    await until("it is adopted", async () => (await rowOf(returning, adopter))?.adopted_by === adopter.number);
    await until("the adopter watches", () => adopter.liveness.statistics().agents === 2);
    using frozen = adopter.gate.hold("refresh-replica");
    await frozen.arrived();
    await refreshReplica(returning.database, returning.number, isolationTimesFor(paceOf(INTERVAL_MS)));
    await beatOnce(returning, after);
    await backdate(returning, adopter, 60_000);
    frozen.release();
    await until("the adopter watches all", () => adopter.liveness.statistics().agents === 5, 5_000);
  });
});

describe("when all replicas were isolated, the whole fleet gets a grace period", () => {
  test("after the database was away from all of them", async () => {
    const { url } = undo.use(await createTestDatabase());
    const proxy = undo.use(await DatabaseProxy.open(url));
    const one = undo.use(await openReplica(proxy.url, PACE));
    const two = undo.use(await openReplica(proxy.url, PACE));
    const direct = undo.use(await openReplica(url, { started: false, listens: false }));
    // This replica runs only the statements of the test, and receives no heartbeats.
    await direct.query("DELETE FROM replicas WHERE id = $1", direct.number);
    const lively = await direct.seedAgents(10, "lively-");
    const silent = await direct.seedAgents(10, "silent-");
    using stream = one.stream();
    using other = two.stream();
    using _beating = new Beating(() => stream, lively.slice(0, 5), 100);
    using _beatingToo = new Beating(() => other, lively.slice(5), 100);
    const end = Math.max(await beatOnce(one, silent.slice(0, 5)), await beatOnce(two, silent.slice(5)));
    await until("all are held", () => stream.acknowledged > 1n && other.acknowledged > 1n);
    proxy.cut();
    await untilThen(direct, end + LEASE_MS * MS);
    const mended = await databaseNow(direct);
    proxy.mend();
    const expired = await untilExpired(direct, 10);
    expect(expired.map(({ agent_id }) => agent_id).toSorted()).toEqual(silent.toSorted());
    expect(await fleetGuard(direct)).toBeGreaterThan(mended + LEASE_MS * MS);
    expect(Math.min(...expired.map(({ at }) => at))).toBeGreaterThanOrEqual(mended + LEASE_MS * MS);
    const acknowledged = stream.acknowledged;
    await until("it goes on", () => stream.acknowledged > acknowledged + 5n);
    expect(await expiries(direct)).toHaveLength(10);
  });

  test("after the event loop was blocked for longer than a lease", async () => {
    const [replica] = await openReplicas(undo, PACE);
    const agentIds = await replica.seedAgents(20, "blocked-");
    await beatOnce(replica, agentIds);
    const stream = replica.stream();
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2 * LEASE_MS);
    const awake = await databaseNow(replica);
    using _beating = new Beating(() => stream, agentIds.slice(0, 10), 100);
    const expired = await untilExpired(replica, 10);
    expect(expired.map(({ agent_id }) => agent_id).toSorted()).toEqual(agentIds.slice(10).toSorted());
    expect(Math.min(...expired.map(({ at }) => at))).toBeGreaterThanOrEqual(awake + (LEASE_MS - 250) * MS);
    expect(Math.max(...expired.map(({ at }) => at))).toBeLessThan(awake + (LEASE_MS + PROMPT_MS) * MS);
  });

  test.each(["stopped in order", "was killed"])("after the only replica %s and another one starts", async (how) => {
    const { url } = undo.use(await createTestDatabase());
    const former = await openReplica(url, { ...PACE, started: false });
    const agentIds = await former.seedAgents(20, "outlives-");
    const end = await beatOnce(former, agentIds);
    await untilThen(former, end + LEASE_MS * MS);
    if (how === "stopped in order") await former[Symbol.asyncDispose]();
    else undo.use(former);

    const next = undo.use(await openReplica(url, PACE));
    const guard = await fleetGuard(next);
    // A whole lease from when it began.
    expect(guard).toBeGreaterThanOrEqual(end + 2 * LEASE_MS * MS);
    using stream = next.stream();
    using _beating = new Beating(() => stream, agentIds.slice(0, 10), 100);
    const expired = await untilExpired(next, 10);
    expect(expired.map(({ agent_id }) => agent_id).toSorted()).toEqual(agentIds.slice(10).toSorted());
    expect(Math.min(...expired.map(({ at }) => at))).toBeGreaterThanOrEqual(guard ?? Number.POSITIVE_INFINITY);
  });

  test("when the next replica starts before the last one counts as isolated", async () => {
    const { url } = undo.use(await createTestDatabase());
    const killed = undo.use(await openReplica(url, { ...PACE, started: false }));
    const agentIds = await killed.seedAgents(10, "at once-");
    await beatOnce(killed, agentIds);
    // It registers in time, however long the rest of its start takes.
    await backdate(killed, killed, -3_000);
    const next = undo.use(await openReplica(url, PACE));
    expect(await fleetGuard(next)).toBeNull();
    const guard = await until("it is adopted", async () => (await rowOf(killed, next))?.until ?? undefined);
    const expired = await untilExpired(next, 10);
    expect(Math.min(...expired.map(({ at }) => at))).toBeGreaterThanOrEqual(guard);
    expect(Math.max(...expired.map(({ at }) => at))).toBeLessThan(guard + PROMPT_MS * MS);
  });

  test("but not when no agent has a lease, or one replica was not isolated", async () => {
    const { url } = undo.use(await createTestDatabase());
    const first = undo.use(await openReplica(url, PACE));
    expect(await fleetGuard(first)).toBeNull();
    await first.createAgent("there");
    undo.use(await openReplica(url, PACE));
    expect(await fleetGuard(first)).toBeNull();
  });
});

test("an agent that sends heartbeats and reports is never offline, whatever happens to its replicas", async () => {
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
