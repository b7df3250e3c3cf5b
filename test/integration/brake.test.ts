import { afterEach, describe, expect, test } from "vitest";
import { createTestDatabase } from "../support/cluster.ts";
import {
  Beating,
  databaseNow,
  type Expiry,
  expiries,
  KeptLog,
  MS,
  openReplicas,
  untilExpired,
} from "../support/fleet-scene.ts";
import { openReplica, type Replica } from "../support/replica.ts";
import { alive, type TestStream } from "../support/replica-stream.ts";
import { startService } from "../support/service.ts";
import { until } from "../support/until.ts";

const INTERVAL_MS = 600;
const LEASE_MS = 3 * INTERVAL_MS;
const ALL = { agentIds: [], userIds: [], clawIdentifiers: [], statuses: [] };
const MASS_SILENCE = "mass silence: many claws fell silent";

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

/** The agents of one claw after the other. */
async function seedClaws(replica: Replica, claws: number, agentsEach: number): Promise<string[][]> {
  const fleet: string[][] = [];
  for (let claw = 1; claw <= claws; claw++)
    fleet.push(await replica.seedAgents(agentsEach, `c${claw}-`, 600_000, `claw-${claw}`));
  return fleet;
}

/** All of them beat, each claw by a stream of its own; the census is as it is after some seconds. */
async function beatOnce(replicas: readonly Replica[], fleet: readonly (readonly string[])[]): Promise<TestStream[]> {
  const streams = fleet.map((_, n) => {
    const replica = replicas[n % replicas.length];
    if (replica === undefined) throw new TypeError("there are replicas");
    return replica.stream();
  });
  await Promise.all(fleet.map((agentIds, n) => streams[n]?.say(...agentIds.map(alive))));
  await replicas[0]?.query(
    "UPDATE fleet_state SET claws = $1, agents = $2, interval_ms = $3, lease_ms = $4",
    fleet.length,
    fleet.flat().length,
    INTERVAL_MS,
    LEASE_MS,
  );
  return streams;
}

/** When each agent was last heard, and when its lease ended. */
async function lastHeard(replica: Replica): Promise<Map<string, { heard: number; ends: number }>> {
  const rows = await replica.query<{ agent_id: string; heard: number; ends: number }>(
    "SELECT agent_id, last_heartbeat AS heard, lease_expires_at AS ends FROM agent_states WHERE last_heartbeat IS NOT NULL",
  );
  return new Map(rows.map(({ agent_id, heard, ends }) => [agent_id, { heard, ends }]));
}

async function engagedAt(replica: Replica): Promise<number | null> {
  return (await replica.agents.fleet(ALL)).brake.engagedAt;
}

/** None before its lease ended, and all within six leases of the last beat. */
function expectWithinSixLeases(expired: readonly Expiry[], heard: Map<string, { heard: number; ends: number }>): void {
  const last = Math.max(...[...heard.values()].map((agent) => agent.heard));
  for (const { agent_id, at } of expired) {
    expect(at).toBeGreaterThanOrEqual(heard.get(agent_id)?.ends ?? Number.POSITIVE_INFINITY);
    expect(at).toBeLessThanOrEqual(last + 6 * LEASE_MS * MS);
  }
}

describe("when many claws fall silent at once", () => {
  test("leases end slowly, agents held back are suspect, an alarm is raised; and those that come back are not offline", async () => {
    const log = new KeptLog();
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS, log });
    const fleet = await seedClaws(replica, 20, 20);
    const streams = await beatOnce([replica], fleet);
    const silent = fleet.slice(0, 10);
    const beating = fleet
      .slice(10)
      .map((agentIds, n) => new Beating(() => streams[n + 10] ?? replica.stream(), agentIds, 200));
    for (const each of beating) undo.use(each);
    const heard = await lastHeard(replica);
    const engaged = await until("the brake engages", async () => (await engagedAt(replica)) ?? undefined);

    // Held back: suspect since their leases ended, or since the brake engaged where that was later.
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
    expect(await replica.agents.get({ agentId: suspects.at(-1)?.agent_id ?? "" })).toMatchObject({
      status: "idle",
      suspectSince: expect.any(Number),
    });
    expect(await replica.agents.get({ agentId: "c20-1" })).toMatchObject({ suspectSince: null });
    const { brake } = await replica.agents.fleet(ALL);
    expect(brake.heldBack).toBeGreaterThan(0n);
    await until("the alarm is raised", () => log.saying(MASS_SILENCE).length === 1);
    expect(log.saying(MASS_SILENCE)[0]).toMatchObject({ level: "error", facts: { heldBack: expect.any(Number) } });
    expect(replica.liveness.brake.engagedAt).toBe(engaged);

    // At the rate that takes the whole fleet in four leases, and not at once.
    const soFar = await expiries(replica);
    const elapsed = ((await databaseNow(replica)) - engaged) / MS;
    expect(soFar.length).toBeLessThanOrEqual((400 / (4 * LEASE_MS)) * elapsed + 1);

    // They come back: nobody of them is offline after that, and the brake lets go.
    await Promise.all(silent.map((agentIds, n) => streams[n]?.say(...agentIds.map(alive))));
    const offline = new Set((await expiries(replica)).map(({ agent_id }) => agent_id));
    expect(offline.size).toBeLessThan(150);
    const back = silent.map((agentIds, n) => new Beating(() => streams[n] ?? replica.stream(), agentIds, 200));
    for (const each of back) undo.use(each);
    await until("the brake is released", async () => (await engagedAt(replica)) === null, 10_000);
    await until("that is said", () => log.saying("the mass silence is over").length === 1);
    expect(await expiries(replica)).toHaveLength(offline.size);
    expect(replica.liveness.brake).toEqual({ engagedAt: null, heldBack: 0n });
    const { statuses } = await replica.agents.fleet(ALL);
    expect(statuses.get("offline") ?? 0n).toBe(0n);
    expect(log.saying(MASS_SILENCE)).toHaveLength(1);
  });

  test.each([
    [3, 1],
    [3, 7],
    [5, 40],
    [20, 100],
  ])("and never come back (%i claws of %i agents), all are offline within six leases, never early", async (claws, each) => {
    const log = new KeptLog();
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS, log });
    const fleet = await seedClaws(replica, claws, each);
    await beatOnce([replica], fleet);
    const heard = await lastHeard(replica);
    const expired = await untilExpired(replica, claws * each, 8 * LEASE_MS);
    expect(expired).toHaveLength(claws * each);
    expectWithinSixLeases(expired, heard);
    expect(log.saying(MASS_SILENCE)).toHaveLength(1);
    // Slowly: by the rate at which all of them take four leases. As many claws as are no mass silence yet may go at once,
    // where their leases end one after the other.
    const atOnce = Math.max(2, Math.floor(claws / 5));
    const slowly = (4 * (claws - atOnce)) / claws - 0.5;
    const span = ((expired.at(-1)?.at ?? 0) - (expired[0]?.at ?? 0)) / MS;
    if (claws * each > 10) expect(span).toBeGreaterThan(slowly * LEASE_MS);
    await until("the brake is released", async () => (await engagedAt(replica)) === null, 10_000);
    expect(new Set(expired.map(({ incident_id }) => incident_id)).size).toBe(claws);
    expect(replica.liveness.census().silentClaws).toBe(claws);
  });

  test("a claw stays one event, however slowly its agents go", async () => {
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS });
    const fleet: string[][] = [[], [], []];
    // Their leases end in this order: of each claw one, then of each claw the other, more than a lease later.
    for (const n of [1, 2]) {
      for (const [claw, agentIds] of fleet.entries())
        agentIds.push(...(await replica.seedAgents(1, `claw-${claw} agent-${n}-`, 600_000, `claw-${claw}`)));
    }
    await replica.stream().say(...fleet.flat().map(alive));
    await replica.query("UPDATE fleet_state SET claws = 3, agents = 6");
    const expired = await untilExpired(replica, 6, 8 * LEASE_MS);
    for (const agentIds of fleet) {
      const own = expired.filter(({ agent_id }) => agentIds.includes(agent_id));
      expect(new Set(own.map(({ incident_id }) => incident_id)).size).toBe(1);
    }
    expect(new Set(expired.map(({ incident_id }) => incident_id)).size).toBe(3);
    expect(replica.liveness.census().silentClaws).toBe(3);
  });

  test("two replicas share one bucket", async () => {
    const { url } = undo.use(await createTestDatabase());
    const logs = [new KeptLog(), new KeptLog()];
    const replicas: Replica[] = [];
    for (const log of logs) replicas.push(undo.use(await openReplica(url, { intervalMs: INTERVAL_MS, log })));
    const [one] = replicas;
    if (one === undefined) throw new TypeError("there are two");
    const fleet = await seedClaws(one, 10, 40);
    await beatOnce(replicas, fleet);
    const heard = await lastHeard(one);
    const expired = await untilExpired(one, 400, 8 * LEASE_MS);
    expectWithinSixLeases(expired, heard);
    const first = expired[0]?.at ?? 0;
    const rate = 400 / (4 * LEASE_MS);
    for (const [n, { at }] of expired.entries()) {
      // The bucket holds a second's worth at most.
      expect(n).toBeLessThanOrEqual(rate * ((at - first) / MS + 1_000) + 2);
    }
    expect(((expired.at(-1)?.at ?? 0) - first) / MS).toBeGreaterThan(3 * LEASE_MS);
    // Each says so: an alarm that only one of them raised may be the one that nobody collects.
    for (const log of logs) expect(log.saying(MASS_SILENCE)).toHaveLength(1);
  });

  test("what is held back is asked about again at a rate that does not grow with the fleet's silence", async () => {
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS });
    const fleet = await seedClaws(replica, 20, 300);
    await beatOnce([replica], fleet);
    const heard = await lastHeard(replica);
    await until("the brake engages", async () => (await engagedAt(replica)) ?? undefined);
    const judged = { members: 0 };
    const submit = replica.committer.submit.bind(replica.committer);
    replica.committer.submit = (change) => {
      judged.members += 1;
      return submit(change);
    };
    const expired = await untilExpired(replica, 6_000, 8 * LEASE_MS);
    expectWithinSixLeases(expired, heard);
    // Each a few times, not four times a second.
    expect(judged.members).toBeLessThan(2 * 6_000);
  });
});

describe("the brake is not for", () => {
  test.each([1, 2])("%i silent claws of ten: their agents go offline at once", async (claws) => {
    const log = new KeptLog();
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS, log });
    const fleet = await seedClaws(replica, 10, 20);
    const streams = await beatOnce([replica], fleet);
    for (const [n, agentIds] of fleet.entries())
      if (n >= claws) undo.use(new Beating(() => streams[n] ?? replica.stream(), agentIds, 200));
    const heard = await lastHeard(replica);
    const expired = await untilExpired(replica, claws * 20);
    for (const { agent_id, at } of expired) expect(at).toBeLessThan((heard.get(agent_id)?.ends ?? 0) + 1_000 * MS);
    expect(new Set(expired.map(({ incident_id }) => incident_id)).size).toBe(claws);
    expect(await engagedAt(replica)).toBeNull();
    expect(log.saying(MASS_SILENCE)).toEqual([]);
  });

  test("three of twenty, nor a small fleet's last two", async () => {
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS });
    const fleet = await seedClaws(replica, 20, 5);
    const streams = await beatOnce([replica], fleet);
    for (const [n, agentIds] of fleet.entries())
      if (n >= 3) undo.use(new Beating(() => streams[n] ?? replica.stream(), agentIds, 200));
    await untilExpired(replica, 15);
    expect(await engagedAt(replica)).toBeNull();
    const [small] = await openReplicas(undo, { intervalMs: INTERVAL_MS });
    await beatOnce([small], await seedClaws(small, 2, 5));
    await untilExpired(small, 10);
    expect(await engagedAt(small)).toBeNull();
  });

  test("claws that fall silent one after the other, each in a lease of its own", async () => {
    const [replica] = await openReplicas(undo, { intervalMs: 150 });
    const fleet = await seedClaws(replica, 6, 3);
    const streams = await beatOnce([replica], fleet);
    await replica.query("UPDATE fleet_state SET interval_ms = 150, lease_ms = 450");
    const beating = fleet.map((agentIds, n) => new Beating(() => streams[n] ?? replica.stream(), agentIds, 50));
    for (const each of beating) undo.use(each);
    for (const [n, each] of beating.slice(0, 5).entries()) {
      each[Symbol.dispose]();
      await untilExpired(replica, 3 * (n + 1));
      expect(await engagedAt(replica)).toBeNull();
    }
  });
});

test("the brake shows where operators look", async () => {
  await using service = await startService({
    pace: { shortestIntervalMs: INTERVAL_MS, heartbeatsPerSecond: 10_000 },
    firstLeaseMs: 500,
  });
  const call = async (method: string, request: object): Promise<string> => {
    const url = `http://${service.addresses.http}/harborforge.agents.v1.${method}`;
    const body = JSON.stringify(request);
    return await (await fetch(url, { method: "POST", body, headers: { "content-type": "application/json" } })).text();
  };
  await Promise.all(
    Array.from({ length: 40 }, (_, n) =>
      call("UserService/CreateUser", { username: `u${n}`, agentId: `a${n}`, clawIdentifier: `claw-${n % 8}` }),
    ),
  );
  const metrics = async () => await (await fetch(`http://${service.addresses.http}/metrics`)).text();
  await until("the metric says so", async () => (await metrics()).includes("\nharborforge_expiry_brake_engaged 1"));
  const fleet: { brake?: { engaged?: boolean } } = JSON.parse(await call("AgentService/GetFleet", {}));
  expect(JSON.stringify(fleet)).toContain("brake");
  expect(fleet.brake).toMatchObject({ engaged: true });
  expect(await call("AgentService/ListAgents", { filter: { statuses: ["AGENT_STATUS_IDLE"] } })).toContain(
    "suspectSince",
  );
  expect(service.logged.filter((line) => line.includes(MASS_SILENCE))).toHaveLength(1);
});
