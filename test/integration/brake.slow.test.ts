import { describe, expect, test as sequentially, vi } from "vitest";
import {
  ALL,
  beatOnce,
  engagedAt,
  expectRateOfBrake,
  expectSlowExpiry,
  expectWithinSixLeases,
  lastHeartbeats,
  seedClaws,
  WITHIN_MS,
} from "../support/brake-scene.ts";
import { Beating, databaseNow, expiries, KeptLog, MS, openReplicas, untilExpired } from "../support/fleet-scene.ts";
import { alive } from "../support/replica-stream.ts";
import { startService } from "../support/service.ts";
import { StallMeter } from "../support/stall-meter.ts";
import { until } from "../support/until.ts";

const INTERVAL_MS = 600;
const LEASE_MS = 3 * INTERVAL_MS;
vi.setConfig({ testTimeout: 120_000 });
/** The tests mostly wait for leases: they run concurrently, each with a database of its own. */
const test = sequentially.concurrent;

describe("when many claws fall silent at once", () => {
  test("leases expire slowly, delayed agents are suspect, an alarm is raised, and agents that return stay online", async () => {
    const intervalMs = 1_000;
    await using undo = new AsyncDisposableStack();
    const log = new KeptLog();
    const [replica] = await openReplicas(undo, { intervalMs, log });
    const fleet = await seedClaws(replica, 20, 20);
    const streams = await beatOnce([replica], fleet, intervalMs);
    const silent = fleet.slice(0, 10);
    for (const [n, agentIds] of fleet.entries())
      if (n >= silent.length) undo.use(new Beating(() => streams[n] ?? replica.stream(), agentIds, 200));
    const heard = await lastHeartbeats(replica);
    const engaged = await until("the brake engages", async () => (await engagedAt(replica)) ?? undefined, WITHIN_MS);

    // Held back: suspect since the end of their leases, or since the brake engaged if that was later.
    const suspects = await until("most are held back", async () => {
      const agents = await replica.query<{ agent_id: string; since: number | null }>(
        "SELECT agent_id, suspect_since AS since FROM agent_states WHERE lease_expires_at IS NOT NULL",
      );
      const held = agents.filter(({ since }) => since !== null);
      return held.length > 100 && held;
    });
    for (const { agent_id, since } of suspects) {
      expect(silent.flat()).toContain(agent_id);
      expect(since).toBe(Math.max(heard.get(agent_id)?.ends ?? 0, engaged));
    }
    expect(await replica.agents.get({ agentId: "c20-1" })).toMatchObject({ suspectSince: null });
    await until("the alarm is raised", () => log.of("brake.engaged").length === 1);
    expect(log.of("brake.engaged")[0]).toMatchObject({ level: "error", facts: { heldBack: expect.any(Number) } });
    expect(replica.liveness.brake).toMatchObject({ engagedAt: engaged });

    // At the rate that expires the whole fleet in four leases, and not at once.
    const soFar = await expiries(replica);
    const elapsed = ((await databaseNow(replica)) - engaged) / MS;
    expect(soFar.length).toBeLessThanOrEqual((400 / (12 * intervalMs)) * elapsed + 1);

    // They return: none of them goes offline after that, and the brake releases.
    await Promise.all(silent.map((agentIds, n) => streams[n]?.say(...agentIds.map(alive))));
    const offline = new Set((await expiries(replica)).map(({ agent_id }) => agent_id));
    for (const [n, agentIds] of silent.entries())
      undo.use(new Beating(() => streams[n] ?? replica.stream(), agentIds, 200));
    await until("the brake is released", async () => (await engagedAt(replica)) === null, WITHIN_MS);
    await until("that is said", () => log.of("brake.released").length === 1);
    expect(await expiries(replica)).toHaveLength(offline.size);
    expect(replica.liveness.brake).toEqual({ engagedAt: null, heldBack: 0n });
    const { statuses } = await replica.agents.fleet(ALL);
    expect(statuses.get("offline") ?? 0n).toBe(0n);
    expect(log.of("brake.engaged")).toHaveLength(1);
  });

  test.each([
    [3, 7],
    [5, 40],
    [20, 100],
  ])("and do not return (%i claws of %i agents), all are offline within six leases, and none early", (claws, each) =>
    expectSlowExpiry(claws, each, INTERVAL_MS));

  test("a claw stays one incident, however slowly its agents expire", async () => {
    await using undo = new AsyncDisposableStack();
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS });
    const fleet: string[][] = [[], [], []];
    // Their leases end in this order: one agent of each claw, then the other agent of each, more than a lease
    // later.
    for (const n of [1, 2]) {
      for (const [claw, agentIds] of fleet.entries())
        agentIds.push(...(await replica.seedAgents(1, `claw-${claw} agent-${n}-`, 600_000, `claw-${claw}`)));
    }
    await replica.stream().say(...fleet.flat().map(alive));
    await replica.query("UPDATE fleet_state SET claws = 3, agents = 6");
    const expired = await untilExpired(replica, 6, WITHIN_MS);
    for (const agentIds of fleet) {
      const own = expired.filter(({ agent_id }) => agentIds.includes(agent_id));
      expect(new Set(own.map(({ incident_id }) => incident_id)).size).toBe(1);
    }
    expect(new Set(expired.map(({ incident_id }) => incident_id)).size).toBe(3);
    expect(replica.liveness.statistics().silentClaws).toBe(3);
  });

  test("two replicas share one token bucket", async () => {
    await using undo = new AsyncDisposableStack();
    const logs = [new KeptLog(), new KeptLog()];
    const replicas = await openReplicas(undo, ...logs.map((log) => ({ intervalMs: INTERVAL_MS, log })));
    const [one] = replicas;
    const stalls = undo.use(new StallMeter(one));
    const fleet = await seedClaws(one, 10, 40);
    await beatOnce(replicas, fleet, INTERVAL_MS);
    const heard = await lastHeartbeats(one);
    const expired = await untilExpired(one, 400, WITHIN_MS);
    expectWithinSixLeases(expired, heard, stalls, INTERVAL_MS);
    const first = expired[0]?.at ?? 0;
    const rate = 400 / (4 * LEASE_MS);
    for (const [n, { at }] of expired.entries()) {
      // The bucket holds one second of tokens at most.
      expect(n).toBeLessThanOrEqual(rate * ((at - first) / MS + 1_000 + stalls.stalledMs) + 2);
    }
    // Each replica raises the alarm: an operator may collect the metrics of only one of them.
    for (const log of logs) expect(log.of("brake.engaged")).toHaveLength(1);
  });

  test.each([
    [300, 2],
    [6_000, 1],
  ])("%i held-back agents are retried at the rate of the brake", (agents, replicas) =>
    expectRateOfBrake(agents, replicas, INTERVAL_MS));

  test("a held-back agent expires on release of the brake, without waiting for its assigned moment", async () => {
    await using undo = new AsyncDisposableStack();
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS });
    const fleet = await seedClaws(replica, 5, 20);
    await beatOnce([replica], fleet, INTERVAL_MS);
    await until("the brake engages", async () => (await engagedAt(replica)) ?? undefined, WITHIN_MS);
    // From now on, the brake assigns a moment in the next millennium.
    await replica.query("UPDATE fleet_state SET brake_next_ask = '3000-01-01'");
    await until("some were told", async () => {
      const [row] = await replica.query<{ told: boolean }>(
        "SELECT brake_next_ask > '3000-01-01' AS told FROM fleet_state",
      );
      return row?.told;
    });
    await until("all have gone", async () => {
      // Repeatedly: the fleet statistics would undo it.
      await replica.query("UPDATE fleet_state SET claws = 1000");
      return (await expiries(replica)).length === 100;
    });
  });
});

describe("the brake does not engage", () => {
  test("for three of twenty claws", async () => {
    await using undo = new AsyncDisposableStack();
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS });
    const fleet = await seedClaws(replica, 20, 5);
    const streams = await beatOnce([replica], fleet, INTERVAL_MS);
    for (const [n, agentIds] of fleet.entries())
      if (n >= 3) undo.use(new Beating(() => streams[n] ?? replica.stream(), agentIds, 100));
    await untilExpired(replica, 15, WITHIN_MS);
    expect(await engagedAt(replica)).toBeNull();
  });

  test("for claws that fall silent one after the other, each in another lease", async () => {
    const intervalMs = 200;
    await using undo = new AsyncDisposableStack();
    const [replica] = await openReplicas(undo, { intervalMs });
    const fleet = await seedClaws(replica, 6, 3);
    const streams = await beatOnce([replica], fleet, intervalMs);
    const beating = fleet.map((agentIds, n) => new Beating(() => streams[n] ?? replica.stream(), agentIds, 50));
    for (const each of beating) undo.use(each);
    for (const [n, each] of beating.slice(0, 5).entries()) {
      each[Symbol.dispose]();
      // From the end of the previous lease on: a slow machine must not shorten this one.
      await streams[n]?.say(...(fleet[n] ?? []).map(alive));
      await untilExpired(replica, 3 * (n + 1), WITHIN_MS);
      expect(await engagedAt(replica)).toBeNull();
    }
  });
});

test("the brake is visible in metrics, log and health", async () => {
  await using service = await startService({
    pace: { shortestIntervalMs: INTERVAL_MS, heartbeatsPerSecond: 10_000 },
    firstLeaseMs: 2_000,
  });
  const page = async (path: string) => {
    const answer = await fetch(`http://${service.addresses.http}${path}`);
    return { status: answer.status, text: await answer.text() };
  };
  const call = async (method: string, request: object): Promise<string> => {
    const url = `http://${service.addresses.http}/harborforge.agents.v1.${method}`;
    const body = JSON.stringify(request);
    return await (await fetch(url, { method: "POST", body, headers: { "content-type": "application/json" } })).text();
  };
  expect(await page("/readyz")).toEqual({ status: 200, text: "ready\n" });
  await Promise.all(
    Array.from({ length: 40 }, (_, n) =>
      call("UserService/CreateUser", { username: `u${n}`, agentId: `a${n}`, clawIdentifier: `claw-${n % 8}` }),
    ),
  );
  // Agents that were never heard cause no mass silence.
  const beats = Array.from({ length: 40 }, (_, n) => ({ agentId: `a${n}` }));
  await call("AgentService/SendHeartbeat", { beats });
  const metric = async (name: string) => {
    const line = new RegExp(`^${name} (.*)$`, "m").exec((await page("/metrics")).text);
    return Number(line?.[1]);
  };
  await until("the metric says so", async () => (await metric("harborforge_expiry_brake_engaged")) === 1);
  const fleet: { brake?: { engaged?: boolean; engagedAt?: string } } = JSON.parse(
    await call("AgentService/GetFleet", {}),
  );
  expect(fleet.brake).toMatchObject({ engaged: true });
  expect(await call("AgentService/ListAgents", { filter: { statuses: ["AGENT_STATUS_IDLE"] } })).toContain(
    "suspectSince",
  );
  expect(service.logged.filter((line) => line.includes('"event":"brake.engaged"'))).toHaveLength(1);
  // The replica still accepts calls: the brake does not affect readiness.
  const ready = await page("/readyz");
  expect(ready.status).toBe(200);
  expect(ready.text).toMatch(
    /^ready\nexpiry brake engaged since 20\d\d-\d\d-\d\dT[\d:.]+Z: a mass silence, \d+ agents held back\n$/,
  );
  await until("the brake is released", async () => (await page("/readyz")).text === "ready\n");
  expect(await metric("harborforge_expiry_brake_engaged")).toBe(0);
});
