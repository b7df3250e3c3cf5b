import { afterEach, describe, expect, test } from "vitest";
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
    const stream = replica.stream();
    await stream.say(...agentIds.map(alive));
    const ends = await Promise.all(agentIds.map((agentId) => leaseEnd(replica, agentId)));
    const expired = await untilExpired(replica, 50);
    expect(expired.map(({ agent_id }) => agent_id).toSorted()).toEqual(agentIds.toSorted());
    expect(new Set(expired.map(({ incident_id }) => incident_id)).size).toBe(1);
    expect(expired[0]?.incident_id).toMatch(/^[0-9a-f-]{36}$/);
    // Not one after the other, at the rate of the brake.
    expect(Math.max(...expired.map(({ at }) => at)) - Math.max(...ends)).toBeLessThan(10_000 * MS);
    expect(log.of("claw.silent")).toEqual([
      { level: "warn", facts: { event: "claw.silent", clawIdentifier: "claw-1" } },
    ]);
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
  await until("it is counted", async () =>
    (await (await fetch(`http://${service.addresses.http}/metrics`)).text()).includes("\nharborforge_silent_claws 1"),
  );
  expect(service.logged.filter((line) => line.includes('"event":"claw.silent"'))).toHaveLength(1);
});
