import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ReportedExhaustion } from "../../common/contract/enum-names.ts";
import type { StatusRequest } from "../../src/domain/status-machine.ts";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { reports, type TestStream } from "../support/replica-stream.ts";

const HOUR_MS = 3_600_000;
const MS = 1_000;

let database: TestDatabase;
/** Recovers due agents. */
let recovering: Replica;
/** Receives the reports and the services' changes. Recovers no agent. */
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

function rateLimit(retryAfterMs: number): { readonly exhausted: ReportedExhaustion } {
  return { exhausted: { reason: "rate_limit", retryAfterMs } };
}

async function says(agentId: string, status: StatusRequest["status"], holdMs: number): Promise<void> {
  await other.agents.updateStatus(agentId, { status, holdMs }, undefined, other.by);
}

/** An agent that reported its own exhaustion. */
async function exhausted(agentId: string, forMs: number): Promise<TestStream> {
  await other.createAgent(agentId);
  const stream = other.stream();
  expect(await stream.say(reports(agentId, rateLimit(forMs)))).toMatchObject([{ status: "exhausted", refusal: null }]);
  return stream;
}

/** Changes of one agent keep their order: an earlier recovery is decided when this change is. */
async function untilDecided(agentId: string): Promise<void> {
  await recovering.committer.submit({ agentId, actor: "server", judge: () => ({ kind: "done", result: undefined }) });
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
    ["is judged after it", "agents-to-judge"],
    ["was judged before it", "commit-changes"],
  ])("is not overruled by a recovery that was due before and %s", async (_, statement) => {
    const agentId = `${statement}, then ${word}`;
    using hold = recovering.gate.hold(statement, "before", 1);
    using stream = await exhausted(agentId, 300);
    await hold.arrived();
    for (const status of statuses) await says(agentId, status, HOUR_MS);
    hold.release();
    await untilDecided(agentId);
    await expectHeld(agentId, stream);
  });
});

describe("a service that exhausts an agent", () => {
  test.each([
    ["judged after it", "agents-to-judge"],
    ["judged before it", "commit-changes"],
  ])("until a later moment is not overruled by a recovery that was due before and is %s", async (_, statement) => {
    const agentId = `${statement}, then exhausted for longer`;
    using hold = recovering.gate.hold(statement, "before", 1);
    using stream = await exhausted(agentId, 300);
    await hold.arrived();
    await says(agentId, { exhausted: { reason: "billing", retryAfterMs: HOUR_MS } }, HOUR_MS);
    hold.release();
    await untilDecided(agentId);
    expect(await stream.say(idle(agentId))).toMatchObject([
      { status: "exhausted", exhaustion: { reason: "billing" }, refusal: { reason: "REPORT_OUTDATED" } },
    ]);
    expect(await storyOf(other, agentId)).toEqual(["report: exhausted", "service: exhausted"]);
  });

  test("with a hold that outlasts the exhaustion: the agent recovers in time, and the hold ends then", async () => {
    const agentId = "held for longer";
    await other.createAgent(agentId);
    using stream = other.stream();
    await stream.say(reports(agentId, "busy"));
    await says(agentId, rateLimit(400), HOUR_MS);
    const { exhaustion } = await other.agents.get({ agentId });
    const recovered = await recovering.untilStatus(agentId, "idle");
    const lateMs = (recovered.statusChangedAt - (exhaustion?.recoveryAt ?? 0)) / MS;
    expect(lateMs).toBeGreaterThanOrEqual(0);
    // Not at the end of the hold.
    expect(lateMs).toBeLessThan(HOUR_MS / 2);
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
