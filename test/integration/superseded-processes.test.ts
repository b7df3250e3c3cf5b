import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { alive, reports } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

const [FIRST, SECOND, THIRD] = [{ instanceId: "started at one" }, { instanceId: "at two" }, { instanceId: "at three" }];
const SUPERSEDED = { refusal: { reason: "SESSION_SUPERSEDED" }, status: null, revision: null };

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

async function free(agentId: string): Promise<void> {
  await until(`nobody holds ${agentId}`, async () => !(await one.agents.get({ agentId })).held);
}

describe("a process that another one superseded", () => {
  test("and that was not told does not take its agents back by a new stream, at any replica", async () => {
    const agentId = "not told";
    await one.createAgent(agentId);
    using frozen = one.stream({ ...FIRST, generation: 1n });
    await frozen.say(reports(agentId, "busy"));
    using current = other.stream({ ...SECOND, generation: 1n });
    await current.say(alive(agentId));
    for (const [generation, at] of [
      [2n, other],
      [3n, one],
    ] as const) {
      using again = at.stream({ ...FIRST, generation });
      expect(await again.say(reports(agentId, "idle"))).toMatchObject([SUPERSEDED]);
    }
    // The process that holds it may reconnect as it likes.
    using moved = one.stream({ ...SECOND, generation: 2n });
    expect(await moved.say(reports(agentId, "on_call"))).toMatchObject([{ status: "on_call", refusal: null }]);
    using again = other.stream({ ...FIRST, generation: 4n });
    expect(await again.say(alive(agentId))).toMatchObject([SUPERSEDED]);
    expect(await storyOf(one, agentId)).toEqual(["report: busy", "report: on_call"]);
  });

  test("does not take them back either by a first beat that was stuck in a stalled replica", async () => {
    const agentId = "stuck meanwhile";
    await one.createAgent(agentId);
    using former = other.stream({ ...FIRST, generation: 1n });
    await former.say(alive(agentId));
    using hold = one.gate.hold("claim-agents");
    using stalled = one.stream({ ...FIRST, generation: 2n });
    const late = stalled.send(reports(agentId, "busy"));
    await hold.arrived();
    using current = other.stream({ ...SECOND, generation: 1n });
    expect(await current.say(alive(agentId))).toMatchObject([{ status: "idle", refusal: null }]);
    hold.release();
    await stalled.acknowledgedUpTo(late);
    expect(stalled.resultsOf(late)).toMatchObject([SUPERSEDED]);
    expect(await current.say(alive(agentId))).toEqual([]);
    expect(await storyOf(one, agentId)).toEqual([]);
  });

  test("gets them where nobody holds them, and the process that had taken them may come again", async () => {
    const agentId = "free for a while";
    await one.createAgent(agentId);
    using former = one.stream({ ...FIRST, generation: 1n });
    await former.say(alive(agentId));
    const current = other.stream({ ...SECOND, generation: 1n });
    await current.say(alive(agentId));
    current.close();
    await free(agentId);
    using back = one.stream({ ...FIRST, generation: 2n });
    expect(await back.say(reports(agentId, "busy"))).toMatchObject([{ status: "busy", refusal: null }]);
    using reconnected = one.stream({ ...FIRST, generation: 3n });
    expect(await reconnected.say(alive(agentId))).toMatchObject([{ status: "busy", refusal: null }]);

    using second = other.stream({ ...SECOND, generation: 2n });
    expect(await second.say(reports(agentId, "on_call"))).toMatchObject([{ status: "on_call", refusal: null }]);
    using tooLate = one.stream({ ...FIRST, generation: 4n });
    expect(await tooLate.say(alive(agentId))).toMatchObject([SUPERSEDED]);
  });

  test("is the last one, where they were taken more than once; whoever comes anew wins", async () => {
    const agentId = "taken twice";
    await one.createAgent(agentId);
    using first = one.stream({ ...FIRST, generation: 1n });
    await first.say(alive(agentId));
    using second = other.stream({ ...SECOND, generation: 1n });
    await second.say(alive(agentId));
    using third = one.stream({ ...THIRD, generation: 1n });
    expect(await third.say(alive(agentId))).toMatchObject([{ refusal: null }]);
    using again = other.stream({ ...SECOND, generation: 2n });
    expect(await again.say(alive(agentId))).toMatchObject([SUPERSEDED]);
    // A stream that names no process is one of its own.
    using anonymous = other.stream();
    expect(await anonymous.say(alive(agentId))).toMatchObject([{ refusal: null }]);
    using thirdAgain = one.stream({ ...THIRD, generation: 2n });
    expect(await thirdAgain.say(alive(agentId))).toMatchObject([SUPERSEDED]);
    using nobody = one.stream();
    expect(await nobody.say(alive(agentId))).toMatchObject([{ refusal: null }]);
  });
});
