import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import type { Hold } from "../support/gate.ts";
import { openReplica, type Replica } from "../support/replica.ts";
import { alive } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

/** Batches of renewals that a replica has under way at most. */
const BATCHES_UNDERWAY = 2;
const SUPERSEDED = { refusal: { reason: "SESSION_SUPERSEDED" }, status: null, revision: null };

let testDatabase: TestDatabase;
let replica: Replica;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  replica = await openReplica(testDatabase.url);
});
afterAll(async () => {
  await replica[Symbol.asyncDispose]();
  await testDatabase.drop();
});

/** Renewals of other agents stand at the gate: those that come from now on wait for their batch until it opens. */
async function occupyWriter(name: string): Promise<Hold> {
  const agentIds = Array.from({ length: BATCHES_UNDERWAY }, (_, n) => `${name} ${n}`);
  for (const agentId of agentIds) await replica.createAgent(agentId);
  const stream = replica.stream();
  await stream.say(...agentIds.map(alive));
  const hold = replica.gate.hold("renew-leases", "before", BATCHES_UNDERWAY);
  for (const [n, agentId] of agentIds.entries()) {
    stream.send(alive(agentId));
    await hold.arrived(n + 1);
  }
  return hold;
}

describe("a renewal that waits for its batch", () => {
  test("is rejected once when a stream at the same replica takes the agent, and the next message is acknowledged", async () => {
    const agentId = "taken while its renewal waits";
    await replica.createAgent(agentId);
    using former = replica.stream();
    await former.say(alive(agentId));
    using hold = await occupyWriter("occupies the writer");
    const late = former.send(alive(agentId));
    using taker = replica.stream();
    const claim = taker.send(alive(agentId));
    await until("the former stream is told", () => former.unasked(agentId).length > 0);
    await former.acknowledgedUpTo(late);
    expect(former.resultsOf(late)).toMatchObject([SUPERSEDED]);
    expect(taker.acknowledged).toBe(0n);
    hold.release();

    await taker.acknowledgedUpTo(claim);
    expect(taker.resultsOf(claim)).toMatchObject([{ status: "idle", refusal: null }]);
    expect(await former.say(alive(agentId))).toMatchObject([SUPERSEDED]);
    expect(former.resultsOf(late)).toMatchObject([SUPERSEDED]);
  });
});
