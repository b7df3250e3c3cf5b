import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { RowLocks } from "../support/gate-locks.ts";
import { DatabaseProxy } from "../support/gate-proxy.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { alive, reports } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

let testDatabase: TestDatabase;
let proxy: DatabaseProxy;
/** Reaches the database through the proxy. */
let cuttable: Replica;
/** Reaches it directly. */
let witness: Replica;
let locks: RowLocks;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  proxy = await DatabaseProxy.open(testDatabase.url);
  [cuttable, witness] = await Promise.all([openReplica(proxy.url), openReplica(testDatabase.url, { started: false })]);
  locks = await RowLocks.open(testDatabase.url);
});

afterEach(async () => {
  proxy.mend();
  await locks.rollback();
});

afterAll(async () => {
  await locks[Symbol.asyncDispose]();
  await Promise.all([cuttable[Symbol.asyncDispose](), witness[Symbol.asyncDispose]()]);
  await proxy[Symbol.asyncDispose]();
  await testDatabase.drop();
});

test("an acknowledged beat is committed at that very moment", async () => {
  const agentId = "witnessed";
  await witness.createAgent(agentId);
  using stream = cuttable.stream();
  const seen: Promise<{ sequence: bigint; story: string[] }>[] = [];
  stream.onAcknowledged((sequence) => {
    seen.push(storyOf(witness, agentId).then((story) => ({ sequence, story })));
  });
  const last = Array.from({ length: 20 }, (_, n) => stream.send(reports(agentId, n % 2 === 0 ? "busy" : "idle"))).at(
    -1,
  );
  await stream.acknowledgedUpTo(last ?? 0n);
  for (const { sequence, story } of await Promise.all(seen)) {
    expect(story.length).toBeGreaterThanOrEqual(Number(sequence));
  }
});

test("acknowledgements are cumulative: a message applied after an unapplied one is not acknowledged", async () => {
  const [slow, quick] = ["slow to commit", "quick to renew"];
  await Promise.all([witness.createAgent(slow), witness.createAgent(quick)]);
  using stream = cuttable.stream();
  await stream.say(alive(slow), alive(quick));
  const before = await witness.agents.get({ agentId: quick });

  await locks.takeCounter();
  const first = stream.send(reports(slow, "busy"));
  await locks.waiting("commit-changes");
  const second = stream.send(alive(quick));
  stream.send();
  await until("the second is applied", async () => {
    const { lastHeartbeat } = await witness.agents.get({ agentId: quick });
    return (lastHeartbeat ?? 0) > (before.lastHeartbeat ?? 0);
  });
  expect(stream.acknowledged).toBe(first - 1n);
  await locks.commit();
  await stream.acknowledgedUpTo(second + 1n);
  expect(stream.resultsOf(first)).toMatchObject([{ status: "busy" }]);
});

test("acknowledges a message without beats, and a message whose beats are all rejected", async () => {
  using stream = cuttable.stream();
  expect(await stream.say()).toEqual([]);
  expect(await stream.say(alive("nobody"))).toMatchObject([{ refusal: { reason: "AGENT_NOT_FOUND" } }]);
});

test("acknowledges nothing while the database is away, then applies all beats, the newest report last", async () => {
  const [reporter, renewer, claimed] = ["reports on", "beats on", "claimed meanwhile"];
  for (const agentId of [reporter, renewer, claimed]) await witness.createAgent(agentId);
  using stream = cuttable.stream();
  await stream.say(alive(reporter), alive(renewer));
  const told = stream.acknowledged;

  proxy.cut();
  stream.send(reports(reporter, "busy"), alive(renewer));
  stream.send(alive(claimed));
  stream.send(reports(reporter, "idle"));
  stream.send(alive(renewer));
  const last = stream.send(reports(reporter, "on_call"));
  await until("it was tried again and again", () => proxy.refused >= 10);
  expect(stream.acknowledged).toBe(told);
  expect(await storyOf(witness, reporter)).toEqual([]);

  const returnedAt = (await witness.query<{ now: number }>("SELECT clock_timestamp() AS now"))[0]?.now ?? 0;
  proxy.mend();
  await stream.acknowledgedUpTo(last);
  expect(await storyOf(witness, reporter)).toEqual(["report: busy", "report: idle", "report: on_call"]);
  expect((await witness.agents.get({ agentId: renewer })).lastHeartbeat).toBeGreaterThan(returnedAt);
  expect(await witness.agents.get({ agentId: claimed })).toMatchObject({ held: true });
  expect(stream.results.every(({ refusal }) => refusal === null)).toBe(true);
});

test("a unary heartbeat waits for the database, too", async () => {
  const agentId = "beats by itself";
  await witness.createAgent(agentId);
  const refusedBefore = proxy.refused;
  proxy.cut();
  const answer = cuttable.liveness.beat([reports(agentId, "busy")], { clawIdentifier: undefined, leaseMs: 30_000 });
  await until("it was tried", () => proxy.refused >= refusedBefore + 3);
  proxy.mend();
  expect(await answer).toMatchObject([{ status: "busy", refusal: null }]);
});

test("reads only some messages ahead from a stream without acknowledgements", async () => {
  const agentId = "sends too fast";
  await witness.createAgent(agentId);
  using stream = cuttable.stream();
  await stream.say(alive(agentId));
  using hold = cuttable.gate.hold("renew-leases");
  for (let n = 0; n < 63; n++) stream.send(alive(agentId));
  await hold.arrived();
  const sequence = stream.send(alive(agentId));
  let taken = false;
  stream.onCapacity(() => {
    taken = true;
  });
  expect(stream.session.submit(sequence + 1n, [alive(agentId)])).toBe(false);
  await new Promise((resolve) => setImmediate(resolve));
  expect(taken).toBe(false);
  hold.release();
  await until("it is read on", () => taken);
});

test("a replica that stops while the database is away ends its streams and acknowledges nothing", async () => {
  const agentId = "left alone";
  await witness.createAgent(agentId);
  await using own = await DatabaseProxy.open(testDatabase.url);
  const stopping = await openReplica(own.url);
  using stream = stopping.stream();
  await stream.say(alive(agentId));
  own.cut();
  stream.send(reports(agentId, "busy"));
  const last = stream.send(alive(agentId));
  await until("it was tried", () => own.refused >= 3);
  await stopping[Symbol.asyncDispose]();
  await until("the stream ends", () => stream.ended);
  expect(stream.acknowledged).toBeLessThan(last);
  expect(await storyOf(witness, agentId)).toEqual([]);
}, 20_000);
