import { afterEach, describe, expect, test } from "vitest";
import { toRfc3339 } from "../../common/contract/time.ts";
import { createTestDatabase } from "../support/cluster.ts";
import {
  Beating,
  expiries,
  KeptLog,
  leaseEnd,
  MS,
  openReplicas,
  untilExpired,
  untilOffline,
} from "../support/fleet-scene.ts";
import { openReplica, type Replica } from "../support/replica.ts";
import { alive } from "../support/replica-stream.ts";
import { startService } from "../support/service.ts";
import { until } from "../support/until.ts";

const INTERVAL_MS = 500;

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

/** A large fleet elsewhere, so that some silent claws are not a mass silence. */
async function amongMany(replica: Replica): Promise<void> {
  await replica.query("INSERT INTO users (username) SELECT 'crowd ' || n FROM generate_series(1, 30) n");
  await replica.query(
    `WITH a AS (
       INSERT INTO agents (user_id, agent_id, claw_identifier, created_at, status_changed_at, revision)
       SELECT u.id, u.username, u.username, clock_timestamp(), clock_timestamp(), 0 FROM users u WHERE starts_with(u.username, 'crowd')
       RETURNING id
     )
     INSERT INTO agent_liveness (agent, revision, epoch, lease_expires_at)
     SELECT id, 0, nextval('agent_epochs'), clock_timestamp() + interval '1 hour' FROM a`,
  );
  await replica.query("UPDATE fleet_state SET claws = 30, agents = 30");
}

describe("a claw that falls silent", () => {
  test("is one incident: all its agents go offline at once, with one incident_id, one log line, one count", async () => {
    const log = new KeptLog();
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS, log });
    await amongMany(replica);
    const agentIds = await replica.seedAgents(50, "silenced-");
    const lively = await replica.seedAgents(10, "lively-", 600_000, "claw-2");
    using others = replica.stream();
    using _beating = new Beating(() => others, lively, 100);
    const stream = replica.stream({ peer: "192.0.2.7" });
    await stream.say(...agentIds.map(alive));
    const [heard] = await replica.query<{ at: number }>(
      "SELECT max(last_heartbeat) AS at FROM agent_states WHERE claw_identifier = 'claw-1'",
    );
    const lastHeartbeat = heard?.at ?? 0;
    const ends = await Promise.all(agentIds.map((agentId) => leaseEnd(replica, agentId)));
    const expired = await untilExpired(replica, 50);
    expect(expired.map(({ agent_id }) => agent_id).toSorted()).toEqual(agentIds.toSorted());
    expect(new Set(expired.map(({ incident_id }) => incident_id)).size).toBe(1);
    expect(expired[0]?.incident_id).toMatch(/^[0-9a-f-]{36}$/);
    // Not one after the other, at the rate of the brake.
    expect(Math.max(...expired.map(({ at }) => at)) - Math.max(...ends)).toBeLessThan(10_000 * MS);
    const [line, ...further] = await until(
      "it is logged",
      () => log.of("claw.silent").length > 0 && log.of("claw.silent"),
    );
    expect(further).toEqual([]);
    expect(line).toEqual({
      level: "warn",
      facts: {
        event: "claw.silent",
        clawIdentifier: "claw-1",
        incidentId: expired[0]?.incident_id,
        agents: 50,
        lastHeartbeat: toRfc3339(lastHeartbeat),
        peer: "192.0.2.7",
      },
    });
    expect(replica.liveness.statistics().silentClaws).toBe(1);
    const [transition] = await replica.history("silenced-1");
    expect(transition?.incidentId).toBe(expired[0]?.incident_id);
  });

  test("is another incident than the next claw, also when both fall silent together", async () => {
    const log = new KeptLog();
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS, log });
    await amongMany(replica);
    const first = await replica.seedAgents(10, "first-", 600_000, "claw-1");
    const second = await replica.seedAgents(10, "second-", 600_000, "claw-2");
    const stream = replica.stream();
    await stream.say(...[...first, ...second].map(alive));
    const expired = await untilExpired(replica, 20);
    const incidents = (agentIds: readonly string[]) =>
      new Set(expired.filter(({ agent_id }) => agentIds.includes(agent_id)).map(({ incident_id }) => incident_id));
    expect(incidents(first).size).toBe(1);
    expect(incidents(second).size).toBe(1);
    expect(incidents([...first, ...second]).size).toBe(2);
    await until("both are logged", () => log.of("claw.silent").length === 2);
    expect(
      log
        .of("claw.silent")
        .map(({ facts }) => facts.clawIdentifier)
        .toSorted(),
    ).toEqual(["claw-1", "claw-2"]);
    expect(replica.liveness.statistics().silentClaws).toBe(2);
  });

  test("is one incident although its agents beat at different times, and although two replicas watch them", async () => {
    const logs = [new KeptLog(), new KeptLog()];
    const { url } = undo.use(await createTestDatabase());
    const one = undo.use(await openReplica(url, { intervalMs: INTERVAL_MS, ...(logs[0] && { log: logs[0] }) }));
    const two = undo.use(await openReplica(url, { intervalMs: INTERVAL_MS, ...(logs[1] && { log: logs[1] }) }));
    await amongMany(one);
    const agentIds = await one.seedAgents(20, "spread-");
    const [here, there] = [one.stream(), two.stream()];
    for (let n = 0; n < 20; n += 4) {
      here.send(...agentIds.slice(n, n + 2).map(alive));
      await there.say(...agentIds.slice(n + 2, n + 4).map(alive));
    }
    await here.say(...agentIds.slice(0, 1).map(alive));
    const last = Math.max(...(await Promise.all(agentIds.map((agentId) => leaseEnd(one, agentId)))));
    const expired = await untilExpired(one, 20);
    // While the last agent still beat within two intervals, the first ones were lost individually.
    const together = expired.filter(({ incident_id }) => incident_id !== null);
    expect(new Set(together.map(({ incident_id }) => incident_id)).size).toBe(1);
    expect(expired.slice(-together.length)).toEqual(together);
    for (const { at, incident_id } of expired) if (at > last) expect(incident_id).not.toBeNull();
    await until("it is logged", () => logs.some((log) => log.of("claw.silent").length > 0));
    expect(logs.flatMap((log) => log.of("claw.silent"))).toHaveLength(1);
    expect(one.liveness.statistics().silentClaws + two.liveness.statistics().silentClaws).toBe(1);
  });

  test("is another incident when it falls silent again", async () => {
    const log = new KeptLog();
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS, log });
    await amongMany(replica);
    const agentIds = await replica.seedAgents(10, "again-");
    const stream = replica.stream();
    for (const time of [1, 2]) {
      await stream.say(...agentIds.map(alive));
      await untilExpired(replica, 10 * time);
    }
    const expired = await expiries(replica);
    const [first, second] = [expired.slice(0, 10), expired.slice(10)].map(
      (some) => new Set(some.map(({ incident_id }) => incident_id)),
    );
    expect([first?.size, second?.size]).toEqual([1, 1]);
    expect(first).not.toEqual(second);
    await until("it is said of it twice", () => log.of("claw.silent").length === 2);
    expect(replica.liveness.statistics().silentClaws).toBe(2);
  });

  test("is no incident while one of its agents still sends heartbeats", async () => {
    const log = new KeptLog();
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS, log });
    const [lost = "", ...heard] = await replica.seedAgents(5, "member-");
    using stream = replica.stream();
    await stream.say(alive(lost));
    using _beating = new Beating(() => stream, heard, 100);
    expect(await untilOffline(replica, lost)).toMatchObject({ incidentId: null });
    expect(await replica.query("SELECT FROM claw_incidents")).toEqual([]);
    expect(log.of("claw.silent")).toEqual([]);
    expect(replica.liveness.statistics().silentClaws).toBe(0);
  });
});

describe("agents that never sent a heartbeat", () => {
  test("go offline at the end of their first lease without an incident, an alarm or the brake", async () => {
    const log = new KeptLog();
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS, firstLeaseMs: 1_000, log });
    for (let claw = 1; claw <= 6; claw += 1)
      for (const agent of ["a", "b"]) await replica.createAgent(`new-${claw}${agent}`, `new-claw-${claw}`);
    const expired = await untilExpired(replica, 12);
    expect(expired.map(({ incident_id }) => incident_id)).toEqual(Array.from({ length: 12 }, () => null));
    expect(await replica.query("SELECT FROM claw_incidents")).toEqual([]);
    expect(log.of("claw.silent")).toEqual([]);
    expect(log.of("brake.engaged")).toEqual([]);
    expect(replica.liveness.statistics().silentClaws).toBe(0);
  });

  test("on their present claw cause none either, although their former claw sent heartbeats", async () => {
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS, firstLeaseMs: 1_000 });
    await amongMany(replica);
    const [moved = "", stays = ""] = await replica.seedAgents(2, "moving-");
    using stream = replica.stream();
    await stream.say(alive(moved), alive(stays));
    using _beating = new Beating(() => stream, [stays], 100);
    await replica.agents.move(moved, "claw-2", replica.by);
    expect(await untilOffline(replica, moved)).toMatchObject({ incidentId: null, fromClaw: "claw-2" });
  });

  test("are no sign of life: the others of their claw are an incident, without them", async () => {
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS, firstLeaseMs: 5_000 });
    await amongMany(replica);
    const agentIds = await replica.seedAgents(3, "heard-");
    await replica.createAgent("never-heard", "claw-1");
    using stream = replica.stream();
    await stream.say(...agentIds.map(alive));
    const expired = await untilExpired(replica, 4);
    const incidentOf = new Map(expired.map(({ agent_id, incident_id }) => [agent_id, incident_id]));
    expect(new Set(agentIds.map((agentId) => incidentOf.get(agentId))).size).toBe(1);
    expect(incidentOf.get("heard-1")).toMatch(/^[0-9a-f-]{36}$/);
    expect(incidentOf.get("never-heard")).toBeNull();
  });
});

describe("incidents", () => {
  const EVERY = { clawIdentifier: undefined, after: undefined, limit: 10 };

  test("are listed, the newest first, with how many agents are affected and how many are back", async () => {
    const log = new KeptLog();
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS, log });
    await amongMany(replica);
    const first = await replica.seedAgents(3, "one-", 600_000, "claw-1");
    using earlier = replica.stream();
    await earlier.say(...first.map(alive));
    await untilExpired(replica, 3);
    const second = await replica.seedAgents(2, "two-", 600_000, "claw-2");
    using later = replica.stream({ peer: "2001:db8::9" });
    await later.say(...second.map(alive));
    const expired = await untilExpired(replica, 5);
    const listed = await replica.agents.incidents(EVERY);
    expect(listed.next).toBeUndefined();
    expect(listed.rows).toMatchObject([
      { incidentId: expired[3]?.incident_id, clawIdentifier: "claw-2", agents: 2n, agentsBack: 0n, endedAt: null },
      { incidentId: expired[0]?.incident_id, clawIdentifier: "claw-1", agents: 3n, agentsBack: 0n, endedAt: null },
    ]);
    for (const { since, lastHeartbeat } of listed.rows) expect(lastHeartbeat).toBeLessThan(since);
    await until("both are logged", () => log.of("claw.silent").length === 2);
    using again = replica.stream();
    await again.say(...first.slice(0, 2).map(alive));
    const [, ended] = (await replica.agents.incidents(EVERY)).rows;
    const back = (await replica.history("one-1")).at(-1)?.occurredAt;
    expect(ended).toMatchObject({ agents: 3n, agentsBack: 2n, endedAt: back });
    const [line] = await until(
      "its return is logged",
      () => log.of("claw.returned").length > 0 && log.of("claw.returned"),
    );
    expect(line?.facts).toMatchObject({
      incidentId: ended?.incidentId,
      clawIdentifier: "claw-1",
      agents: 3,
      silentMs: expect.any(Number),
    });

    const paged = await replica.agents.incidents({ ...EVERY, limit: 1 });
    expect(paged.rows.map(({ clawIdentifier }) => clawIdentifier)).toEqual(["claw-2"]);
    const next = await replica.agents.incidents({ ...EVERY, limit: 1, after: paged.next });
    expect(next.rows.map(({ clawIdentifier }) => clawIdentifier)).toEqual(["claw-1"]);
    expect(next.next).toBeUndefined();
    const ofClaw = await replica.agents.incidents({ ...EVERY, clawIdentifier: "claw-1" });
    expect(ofClaw.rows).toEqual([ended]);

    const scope = { kind: "agents", agentIds: new Set(["one-1", "two-9"]) } as const;
    expect((await replica.agents.incidents({ ...EVERY, scope })).rows).toMatchObject([
      { clawIdentifier: "claw-1", agents: 1n, agentsBack: 1n },
    ]);
    const otherClaw = { kind: "claw", clawIdentifier: "claw-2" } as const;
    expect((await replica.agents.incidents({ ...EVERY, scope: otherClaw })).rows).toEqual([listed.rows[0]]);
    expect((await replica.agents.incidents({ ...EVERY, scope: otherClaw, clawIdentifier: "claw-1" })).rows).toEqual([]);

    await replica.query("UPDATE revision_counter SET oldest = $1", (await replica.history("two-1")).at(-1)?.revision);
    expect((await replica.agents.incidents(EVERY)).rows).toEqual([]);
  });

  test("and the brake are logged with claws, incidents, last heartbeats, addresses and final numbers", async () => {
    const log = new KeptLog();
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS, log });
    for (let claw = 1; claw <= 4; claw += 1) {
      const agentIds = await replica.seedAgents(2, `braked-${claw}-`, 600_000, `claw-${claw}`);
      await replica.stream({ peer: `192.0.2.${claw}` }).say(...agentIds.map(alive));
    }
    await replica.query("UPDATE fleet_state SET claws = 4, agents = 8");
    await untilExpired(replica, 8, 60_000);
    const [released] = await until(
      "it is released",
      () => log.of("brake.released").length > 0 && log.of("brake.released"),
      60_000,
    );
    const [engaged] = log.of("brake.engaged");
    const incidentOf = new Map(
      (await replica.agents.incidents(EVERY)).rows.map(({ clawIdentifier, incidentId }) => [
        clawIdentifier,
        incidentId,
      ]),
    );
    expect(incidentOf.size).toBe(4);
    expect(engaged?.facts.claws).toBeGreaterThanOrEqual(3);
    expect(released?.facts).toMatchObject({ claws: 4, lastedMs: expect.any(Number), mostHeldBack: expect.any(Number) });
    expect(released?.facts.silent).toEqual(
      expect.arrayContaining(
        [1, 2, 3, 4].map((claw) => ({
          clawIdentifier: `claw-${claw}`,
          incidentId: incidentOf.get(`claw-${claw}`),
          lastHeartbeat: expect.stringMatching(/Z$/),
          peer: `192.0.2.${claw}`,
        })),
      ),
    );
    const [counted] = await replica.query<{ agents: bigint }>(
      "SELECT count(*) AS agents FROM agent_transitions, (SELECT $1::timestamptz AS at) e WHERE cause = 'lease_expired' AND occurred_at >= e.at",
      released?.facts.engagedAt,
    );
    expect(released?.facts.agents).toBe(Number(counted?.agents));
  });
});

test("the metrics count a claw that fell silent", async () => {
  await using service = await startService({
    pace: { shortestIntervalMs: 150, heartbeatsPerSecond: 10_000 },
    firstLeaseMs: 300,
  });
  await service.query("INSERT INTO users (username) VALUES ('one'), ('two')");
  const listener = `http://${service.addresses.http}/harborforge.agents.v1.AgentService/CreateAgent`;
  for (const [n, agentId] of ["one", "two"].entries()) {
    const body = JSON.stringify({ userId: String(n + 1), agentId, clawIdentifier: "claw-9" });
    const answer = await fetch(listener, { method: "POST", body, headers: { "content-type": "application/json" } });
    expect(answer.status).toBe(200);
  }
  const heartbeat = `http://${service.addresses.http}/harborforge.agents.v1.AgentService/SendHeartbeat`;
  const body = JSON.stringify({ clawIdentifier: "claw-9", beats: [{ agentId: "one" }, { agentId: "two" }] });
  expect(
    (await fetch(heartbeat, { method: "POST", body, headers: { "content-type": "application/json" } })).status,
  ).toBe(200);
  await until("it is counted", async () =>
    (await (await fetch(`http://${service.addresses.http}/metrics`)).text()).includes("\nharborforge_silent_claws 1"),
  );
  const lines = await until("it is logged", () => {
    const found = service.logged.filter((line) => line.includes('"event":"claw.silent"'));
    return found.length > 0 && found;
  });
  expect(lines).toHaveLength(1);
  expect(JSON.parse(lines[0] ?? "")).toMatchObject({ clawIdentifier: "claw-9", agents: 2, peer: "127.0.0.1" });
});
