import { afterAll, beforeAll, expect, test } from "vitest";
import type { BeatResult } from "../../src/domain/message-to-claw.ts";
import type { StatusRequest } from "../../src/domain/status-machine.ts";
import { MAX_CHANGES_OF_AGENT } from "../../src/storage/committer.ts";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { alive, reports } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

const LEASE_MS = 30_000;

let database: TestDatabase;
let replica: Replica;
beforeAll(async () => {
  database = await createTestDatabase();
  replica = await openReplica(database.url);
});
afterAll(async () => {
  await replica[Symbol.asyncDispose]();
  await database.drop();
});

function word(place: number): StatusRequest {
  return { status: place % 2 === 0 ? "busy" : "on_call", holdMs: 0 };
}

/** Many changes by services; the first is on its way to the database and stays there. */
async function flooded(agentId: string, count: number) {
  await replica.createAgent(agentId);
  const stream = replica.stream();
  await stream.say(alive(agentId));
  const hold = replica.gate.hold("commit-changes", "before", 1);
  const call = { deadline: performance.now() + 60_000, over: false };
  const change = (place: number) =>
    replica.agents.updateStatus(agentId, word(place), undefined, { ...replica.by, call });
  const first = change(0);
  await hold.arrived();
  const others = Array.from({ length: count - 1 }, (_, place) => change(place + 1));
  const settled = Promise.allSettled([first, ...others]);
  const end = async (): Promise<void> => {
    stream.close();
    hold.release();
    await settled;
  };
  return { stream, hold, call, settled, [Symbol.asyncDispose]: end };
}

test("a report waits only for the change of its agent that is under way", async () => {
  const agentId = "reports beside many changes";
  await using scene = await flooded(agentId, 30);
  const { stream, hold, settled } = scene;
  const sequence = stream.send(reports(agentId, "on_call"));
  hold.release();
  await stream.acknowledgedUpTo(sequence);
  await settled;
  const story = await storyOf(replica, agentId);
  // The change after the report finds its target state in place.
  expect(story).toHaveLength(30);
  expect(story.slice(0, 3)).toEqual(["service: busy", "report: on_call", "service: busy"]);
});

test("changes of one agent beyond the queue limit are rejected at once, without effect on other agents", async () => {
  const agentId = "too many changes";
  await using scene = await flooded(agentId, MAX_CHANGES_OF_AGENT + 11);
  const { hold, settled } = scene;
  const neighbour = replica.createAgent("neighbour of many changes");
  hold.release();
  const outcomes = await settled;
  expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(MAX_CHANGES_OF_AGENT + 1);
  for (const outcome of outcomes.slice(MAX_CHANGES_OF_AGENT + 1)) {
    expect(outcome).toMatchObject({
      reason: {
        reason: "LIMIT_EXCEEDED",
        metadata: { limit: "changesPerAgent", changesPerAgent: `${MAX_CHANGES_OF_AGENT}`, agentId },
        retryAfterMs: expect.any(Number),
      },
    });
  }
  expect((await neighbour).status).toBe("idle");
});

test("changes whose callers have gone are neither judged nor applied, and free their places", async () => {
  const agentId = "abandoned changes";
  await using scene = await flooded(agentId, MAX_CHANGES_OF_AGENT + 1);
  const { stream, hold, call, settled } = scene;
  const sequence = stream.send(reports(agentId, "on_call"));
  call.over = true;
  const newcomer = replica.agents.updateStatus(agentId, word(0), undefined, replica.by);
  hold.release();
  await stream.acknowledgedUpTo(sequence);
  await newcomer;
  const outcomes = await settled;
  expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  expect(await storyOf(replica, agentId)).toEqual(["service: busy", "report: on_call", "service: busy"]);
});

test("a report waits for at most one of very many unary heartbeats of its agent", async () => {
  const agentId = "many unary heartbeats";
  await replica.createAgent(agentId);
  using stream = replica.stream();
  await stream.say(alive(agentId));
  using hold = replica.gate.hold("commit-changes", "before", 1);
  const call = { deadline: performance.now() + 60_000, over: false };
  const beat = (place: number): Promise<readonly BeatResult[]> =>
    replica.liveness.beat([reports(agentId, place % 2 === 0 ? "busy" : "on_call")], {
      clawIdentifier: undefined,
      leaseMs: LEASE_MS,
      call,
    });
  const first = beat(0);
  await hold.arrived();
  const others = Array.from({ length: MAX_CHANGES_OF_AGENT + 5 }, (_, place) => beat(place + 1));
  const sequence = stream.send(reports(agentId, "idle"));
  hold.release();
  await stream.acknowledgedUpTo(sequence);
  await first;
  const results = (await Promise.all(others)).flat();
  const refusals = results.flatMap(({ refusal }) => (refusal === null ? [] : [refusal]));
  expect(refusals.map(({ reason, metadata }) => [reason, metadata.limit])).toEqual(
    Array.from({ length: 5 }, () => ["LIMIT_EXCEEDED", "changesPerAgent"]),
  );
  const story = await storyOf(replica, agentId);
  expect(story.slice(0, 2)).toEqual(["report: busy", "report: idle"]);
  expect(story).toHaveLength(MAX_CHANGES_OF_AGENT + 2);
});

test("the reports of a stream keep their order beside unary heartbeats", async () => {
  const agentId = "in order beside unary ones";
  await replica.createAgent(agentId);
  using stream = replica.stream();
  await stream.say(alive(agentId));
  using hold = replica.gate.hold("commit-changes", "before", 1);
  const unary = replica.liveness.beat([reports(agentId, "busy")], { clawIdentifier: undefined, leaseMs: LEASE_MS });
  await hold.arrived();
  const later = replica.liveness.beat([reports(agentId, "busy")], { clawIdentifier: undefined, leaseMs: LEASE_MS });
  const statuses = ["idle", "on_call", "idle", "on_call"] as const;
  for (const status of statuses) stream.send(reports(agentId, status));
  hold.release();
  await Promise.all([unary, later]);
  await until("all are acknowledged", () => stream.acknowledged === 5n);
  expect(await storyOf(replica, agentId)).toEqual(["busy", ...statuses, "busy"].map((status) => `report: ${status}`));
});
