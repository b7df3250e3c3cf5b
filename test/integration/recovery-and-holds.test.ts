import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ExhaustionNews } from "../../src/domain/agent.ts";
import type { ServiceWord } from "../../src/domain/status-machine.ts";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { reports, type TestStream } from "../support/replica-stream.ts";
import { useStallMeter } from "../support/stall-meter.ts";
import { until } from "../support/until.ts";

const HOUR_MS = 3_600_000;
const MS = 1_000;

const stalls = useStallMeter();

let database: TestDatabase;
/** Recovers what is due. */
let recovering: Replica;
/** Takes the reports and the services' words. Recovers no agent. */
let other: Replica;

beforeAll(async () => {
  database = await createTestDatabase();
  recovering = await openReplica(database.url);
  other = await openReplica(database.url, { started: false });
});
afterAll(async () => {
  await Promise.all([recovering[Symbol.asyncDispose](), other[Symbol.asyncDispose]()]);
  await database.drop();
});

function rateLimit(retryAfterMs: number): { readonly exhausted: ExhaustionNews } {
  return { exhausted: { reason: "rate_limit", retryAfterMs } };
}

async function says(agentId: string, status: ServiceWord["status"], holdMs: number): Promise<void> {
  await other.agents.updateStatus(agentId, { status, holdMs }, undefined, other.by);
}

/** An agent that has said itself that it is exhausted. */
async function exhausted(agentId: string, forMs: number): Promise<TestStream> {
  await other.createAgent(agentId);
  const stream = other.stream();
  expect(await stream.say(reports(agentId, rateLimit(forMs)))).toMatchObject([{ status: "exhausted", refusal: null }]);
  return stream;
}

/** Waits until another agent, exhausted from now on for so long, has recovered. */
async function untilAnotherRecovers(agentId: string, afterMs: number): Promise<void> {
  using _stream = await exhausted(agentId, afterMs);
  await recovering.untilStatus(agentId, "idle");
}

const repeated = (agentId: string) => reports(agentId, rateLimit(HOUR_MS));
const idle = (agentId: string) => reports(agentId, "idle");

describe.each([
  { word: "idle", statuses: ["idle"], outdated: repeated },
  { word: "busy", statuses: ["idle", "busy"], outdated: idle },
  { word: "on_call", statuses: ["idle", "on_call"], outdated: idle },
] as const)("a service that sets an exhausted agent $word, with a hold", ({ word, statuses, outdated }) => {
  const story = ["report: exhausted", ...statuses.map((status) => `service: ${status}`)];

  async function expectHeld(agentId: string, stream: TestStream): Promise<void> {
    expect(await stream.say(outdated(agentId))).toMatchObject([
      { status: word, exhaustion: null, refusal: { reason: "REPORT_OUTDATED" } },
    ]);
    expect(await storyOf(other, agentId)).toEqual(story);
  }

  test.each([
    ["is judged after it", "read-agents"],
    ["was judged before it", "commit-changes"],
  ])("is not overruled by a recovery that was due before and %s", async (_, statement) => {
    const agentId = `${statement}, then ${word}`;
    using hold = recovering.gate.hold(statement, "before", 1);
    using stream = await exhausted(agentId, 300);
    await hold.arrived();
    for (const status of statuses) await says(agentId, status, HOUR_MS);
    hold.release();
    await until("the recovery is decided", () => recovering.committer.waiting === 0);
    await expectHeld(agentId, stream);
  });
});

describe("a service that exhausts an agent", () => {
  test("until later than the agent itself: it recovers at the service's moment, and its hold stands until then", async () => {
    const agentId = "exhausted for longer";
    using stream = await exhausted(agentId, 600);
    await says(agentId, { exhausted: { reason: "billing", retryAfterMs: HOUR_MS } }, HOUR_MS);
    await untilAnotherRecovers(`later than ${agentId}`, 900);
    expect(await stream.say(reports(agentId, "idle"))).toMatchObject([
      { status: "exhausted", exhaustion: { reason: "billing" }, refusal: { reason: "REPORT_OUTDATED" } },
    ]);
    expect(await storyOf(other, agentId)).toEqual(["report: exhausted", "service: exhausted"]);
  });

  test("with a hold that outlasts the exhaustion: it recovers in time, and the hold ends with that", async () => {
    const agentId = "held for longer";
    await other.createAgent(agentId);
    using stream = other.stream();
    await stream.say(reports(agentId, "busy"));
    await says(agentId, rateLimit(400), HOUR_MS);
    const { exhaustion } = await other.agents.get({ agentId });
    const recovered = await recovering.untilStatus(agentId, "idle");
    const lateMs = (recovered.statusChangedAt - (exhaustion?.recoveryAt ?? 0)) / MS;
    expect(lateMs).toBeGreaterThanOrEqual(0);
    expect(lateMs).toBeLessThan(1_000 + stalls.ms);
    expect(recovered.hold).toBeNull();
    expect(await stream.say(reports(agentId, "busy"))).toMatchObject([{ status: "busy", refusal: null }]);
    expect(await storyOf(other, agentId)).toEqual([
      "report: busy",
      "service: exhausted",
      "recovery: idle",
      "report: busy",
    ]);
  });
});
