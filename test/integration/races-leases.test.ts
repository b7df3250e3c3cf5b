import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { RowLocks } from "../support/gate-locks.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { alive, reports } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

let testDatabase: TestDatabase;
/** Watches leases. */
let watcher: Replica;
/** Expires no lease by itself, so that only the other replica does. */
let quiet: Replica;
let locks: RowLocks;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  [watcher, quiet] = await Promise.all([
    openReplica(testDatabase.url),
    openReplica(testDatabase.url, { started: false }),
  ]);
  locks = await RowLocks.open(testDatabase.url);
});

afterAll(async () => {
  await locks[Symbol.asyncDispose]();
  await Promise.all([watcher[Symbol.asyncDispose](), quiet[Symbol.asyncDispose]()]);
  await testDatabase.drop();
});

afterEach(() => locks.rollback());

/**
 * Resolves when the pending work of the watching replica for the agent is decided: its changes keep their
 * order.
 */
async function decided(agentId: string): Promise<void> {
  await watcher.agents.updateStatus(agentId, { status: "on_call", holdMs: 0 }, undefined, watcher.by);
}

describe.each([
  ["the replica that watches the lease", () => watcher],
  ["another replica", () => quiet],
])("a beat at %s against the expiry of the lease", (where, at) => {
  const name = (what: string) => `${what} at ${where}`;

  test("keeps the agent online when it commits after the lease was found over and before the expiry", async () => {
    const agentId = name("kept");
    await watcher.createAgent(agentId);
    using stream = at().stream();
    await stream.say(alive(agentId));

    using hold = watcher.gate.hold("commit-changes");
    await watcher.backdateLease(agentId);
    await watcher.watchLease(agentId);
    await hold.arrived();
    expect(await stream.say(alive(agentId))).toEqual([]);
    hold.release();

    await decided(agentId);
    expect(await storyOf(watcher, agentId)).toEqual(["service: on_call"]);
  });

  test("that arrives during the expiry brings the agent back", async () => {
    const agentId = name("brought back");
    await watcher.createAgent(agentId);
    using stream = at().stream();
    await stream.say(alive(agentId));

    await locks.takeCounter();
    await watcher.backdateLease(agentId);
    await watcher.watchLease(agentId);
    await locks.waiting("commit-changes");
    const sequence = stream.send(alive(agentId));
    await locks.waiting("renew-leases");
    expect(stream.acknowledged).toBe(1n);
    await locks.commit();

    await stream.acknowledgedUpTo(sequence);
    expect(stream.resultsOf(sequence)).toMatchObject([{ status: "idle", refusal: null }]);
    expect(await storyOf(watcher, agentId)).toEqual(["lease_expired: offline", "heartbeat: idle"]);
  });

  test("that reports a status during the expiry is not lost", async () => {
    const agentId = name("reported");
    await watcher.createAgent(agentId);
    using stream = at().stream();
    await stream.say(alive(agentId));

    await locks.takeCounter();
    await watcher.backdateLease(agentId);
    await watcher.watchLease(agentId);
    await locks.waiting("commit-changes");
    const sequence = stream.send(reports(agentId, "busy"));
    if (at() !== watcher) await locks.waiting("commit-changes", 2);
    await locks.commit();

    await stream.acknowledgedUpTo(sequence);
    expect(stream.resultsOf(sequence)).toMatchObject([{ status: "busy", refusal: null }]);
    expect(await storyOf(watcher, agentId)).toEqual(["lease_expired: offline", "report: busy"]);
  });

  test("that reports a status before the expiry keeps the agent online", async () => {
    const agentId = name("reported in time");
    await watcher.createAgent(agentId);
    using stream = at().stream();
    await stream.say(alive(agentId));

    // At one replica, the order of its queue commits the report first.
    using hold = watcher.gate.hold("commit-changes", "before", 1);
    await watcher.backdateLease(agentId);
    const sequence = stream.send(reports(agentId, "busy"));
    if (at() !== watcher) await stream.acknowledgedUpTo(sequence);
    await watcher.watchLease(agentId);
    if (at() === watcher) await hold.arrived();
    hold.release();

    await stream.acknowledgedUpTo(sequence);
    await decided(agentId);
    expect(await storyOf(watcher, agentId)).toEqual(["report: busy", "service: on_call"]);
  });
});

test("an expiry that waits for the row does not overlook a renewal that commits meanwhile", async () => {
  const agentId = "renewed under the lock";
  await watcher.createAgent(agentId);
  await watcher.backdateLease(agentId);
  await locks.takeLiveness(agentId);
  await watcher.watchLease(agentId);
  await locks.waiting("commit-changes");
  await locks.write(
    `UPDATE agent_liveness SET lease_expires_at = clock_timestamp() + interval '1 minute'
     WHERE agent = (SELECT id FROM agents WHERE agent_id = $1)`,
    agentId,
  );
  await locks.commit();

  await decided(agentId);
  expect(await storyOf(watcher, agentId)).toEqual(["service: on_call"]);
});

test("a lease without renewal expires once, however many replicas find it", async () => {
  const agentId = "ended once";
  await watcher.createAgent(agentId);
  await using third = await openReplica(testDatabase.url);
  await locks.takeCounter();
  await watcher.backdateLease(agentId);
  await Promise.all([watcher.watchLease(agentId), third.watchLease(agentId)]);
  await locks.waiting("commit-changes", 2);
  await locks.commit();

  await watcher.untilStatus(agentId, "offline");
  await until("both have decided", () => watcher.committer.waiting + third.committer.waiting === 0);
  await third.agents.updateStatus(
    agentId,
    { status: { exhausted: { reason: "billing" } }, holdMs: 0 },
    undefined,
    third.by,
  );
  expect(await storyOf(watcher, agentId)).toEqual(["lease_expired: offline", "service: offline"]);
});

test("a beat after the expiry brings the agent back with its former status", async () => {
  const agentId = "still out of quota";
  await watcher.createAgent(agentId);
  using stream = watcher.stream();
  await stream.say(reports(agentId, { exhausted: { reason: "billing", retryAfterMs: 60_000 } }));
  await watcher.backdateLease(agentId);
  await watcher.watchLease(agentId);
  const gone = await watcher.untilStatus(agentId, "offline");
  expect(gone).toMatchObject({ held: false, leaseExpiresAt: null, exhaustion: { reason: "billing" } });

  expect(await stream.say(alive(agentId))).toMatchObject([
    { status: "exhausted", exhaustion: gone.exhaustion, refusal: null },
  ]);
  expect(await watcher.agents.get({ agentId })).toMatchObject({ held: true, leaseExpiresAt: expect.any(Number) });
  expect(await storyOf(watcher, agentId)).toEqual([
    "report: exhausted",
    "lease_expired: offline",
    "heartbeat: exhausted",
  ]);
});
