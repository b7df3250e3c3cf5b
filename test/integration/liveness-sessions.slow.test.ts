import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica } from "../support/replica.ts";
import { alive, reports } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

let testDatabase: TestDatabase;
let one: Replica;
let other: Replica;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  [one, other] = await Promise.all([openReplica(testDatabase.url), openReplica(testDatabase.url)]);
});

afterAll(async () => {
  await Promise.all([one[Symbol.asyncDispose](), other[Symbol.asyncDispose]()]);
  await testDatabase.drop();
});

describe("the beats of a stream", () => {
  test("are accepted for 10 000 agents; beats of further agents are rejected and affect no other beat", async () => {
    const agentIds = await one.seedAgents(10_000, "fleet-");
    await one.createAgent("one too many");
    using stream = one.stream();
    let last = 0n;
    for (let from = 0; from < agentIds.length; from += 1_000) {
      last = stream.send(...agentIds.slice(from, from + 1_000).map(alive));
    }
    await stream.acknowledgedUpTo(last);
    expect(stream.results.every(({ refusal }) => refusal === null)).toBe(true);
    expect(stream.results).toHaveLength(10_000);

    const [first = ""] = agentIds;
    expect(await stream.say(reports(first, "busy"), alive("one too many"))).toMatchObject([
      { agentId: first, status: "busy", refusal: null },
      { agentId: "one too many", refusal: { reason: "LIMIT_EXCEEDED", metadata: { limit: "10000" } }, beatIndex: 1 },
    ]);
    expect(await one.agents.get({ agentId: "one too many" })).toMatchObject({ lastHeartbeat: null });
    using second = one.stream();
    expect(await second.say(alive("one too many"))).toMatchObject([{ refusal: null }]);
    // A deleted agent frees its place.
    await other.agents.delete(first, other.by);
    await one.untilHeard();
    await until("it is told", () => stream.unasked(first).at(-1)?.refusal?.reason === "AGENT_NOT_FOUND");
    expect(await stream.say(alive("one too many"))).toMatchObject([{ refusal: null, status: "idle" }]);
  });
});
