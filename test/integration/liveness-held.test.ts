import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Refusal } from "../../src/domain/errors.ts";
import type { ParsedBeat } from "../../src/domain/heartbeat.ts";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica } from "../support/replica.ts";
import { alive, goodbye } from "../support/replica-stream.ts";

const UNARY = { clawIdentifier: undefined, leaseMs: 30_000 };

let testDatabase: TestDatabase;
let replica: Replica;
let other: Replica;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  [replica, other] = await Promise.all([openReplica(testDatabase.url), openReplica(testDatabase.url)]);
});
afterAll(async () => {
  await Promise.all([replica[Symbol.asyncDispose](), other[Symbol.asyncDispose]()]);
  await testDatabase.drop();
});

async function isHeld(agentId: string): Promise<boolean> {
  return (await replica.agents.get({ agentId })).held;
}

describe("a unary heartbeat", () => {
  test.each([
    ["the same", () => replica],
    ["another", () => other],
  ])("at %s replica does not take an agent from the session that holds it", async (where, at) => {
    const agentId = `held, and heard at ${where}`;
    await replica.createAgent(agentId);
    using stream = replica.stream();
    await stream.say(alive(agentId));
    await at().liveness.beat([alive(agentId)], UNARY);
    expect(await isHeld(agentId)).toBe(true);
    expect(await stream.say(alive(agentId))).toEqual([]);
  });

  test("brings an agent back without a session; the next beat of its stream holds it again", async () => {
    const agentId = "left, and heard again";
    await replica.createAgent(agentId);
    using stream = replica.stream();
    await stream.say(alive(agentId), goodbye(agentId));
    expect(await isHeld(agentId)).toBe(false);
    await replica.liveness.beat([alive(agentId)], UNARY);
    expect(await isHeld(agentId)).toBe(false);
    await stream.say(alive(agentId));
    expect(await isHeld(agentId)).toBe(true);
  });
});

describe("a stream that does not read its results", () => {
  /** A message whose beats are all rejected. */
  function rejected(count: number, agentId: string): ParsedBeat[] {
    return Array.from({ length: count }, () => ({ agentId, refusal: new Refusal("INVALID_FIELD", "no name") }));
  }

  test.each([
    { count: 999, length: 10, goesOn: true },
    { count: 1_000, length: 10, goesOn: false },
    { count: 262, length: 1_000, goesOn: true },
    { count: 263, length: 1_000, goesOn: false },
  ])("after $count results with names of $length characters: accepts another message is $goesOn", async ({
    count,
    length,
    goesOn,
  }) => {
    let calls = 0;
    const options = { clawIdentifier: undefined, instanceId: undefined, generation: 0n };
    const session = replica.liveness.openSession(options, {
      onOutput: () => undefined,
      onCapacity: () => (calls += 1),
    });
    expect(session.submit(1n, rejected(count, "x".repeat(length)))).toBe(goesOn);
    expect(session.take()?.messages).toHaveLength(count);
    // A listener is notified at the end of the microtasks of this turn.
    await new Promise((resolve) => setImmediate(resolve));
    expect(calls).toBe(goesOn ? 0 : 1);
    expect(session.submit(2n, rejected(1, "x"))).toBe(true);
    session.close();
  });
});
