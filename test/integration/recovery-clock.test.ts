import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Agent } from "../../src/domain/agent.ts";
import { judgeBeat, judgeRecovery, type StatusChange } from "../../src/domain/status-machine.ts";
import { KEEP_LEASE } from "../../src/storage/agent-change.ts";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { goodbye, reports } from "../support/replica-stream.ts";

const HOUR_MICROS = 3_600_000_000;

let testDatabase: TestDatabase;
/** Recovers no agent by itself. */
let replica: Replica;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  replica = await openReplica(testDatabase.url, { started: false });
});
afterAll(async () => {
  await replica[Symbol.asyncDispose]();
  await testDatabase.drop();
});

describe("a replica whose clock makes the recovery due before the database's clock does", () => {
  test.each([
    {
      what: "recovers an exhausted agent",
      isOffline: false,
      judge: (agent: Agent, now: number): StatusChange | undefined => judgeRecovery(agent, now + HOUR_MICROS),
      story: ["report: exhausted", "recovery: idle"],
    },
    {
      what: "clears the exhaustion of an offline agent",
      isOffline: true,
      judge: (agent: Agent, now: number): StatusChange | undefined => judgeRecovery(agent, now + HOUR_MICROS),
      story: ["report: exhausted", "goodbye: offline", "recovery: offline"],
    },
    {
      what: "brings an offline agent back as idle",
      isOffline: true,
      judge(agent: Agent, now: number): StatusChange | undefined {
        const verdict = judgeBeat(agent, { report: undefined, knownRevision: undefined }, now + HOUR_MICROS, 0.5);
        return verdict.kind === "change" ? verdict : undefined;
      },
      story: ["report: exhausted", "goodbye: offline", "heartbeat: idle"],
    },
  ])("$what no sooner than that clock says", async ({ what, isOffline, judge, story }) => {
    const agentId = what;
    await replica.createAgent(agentId);
    using stream = replica.stream();
    const [told] = await stream.say(
      reports(agentId, { exhausted: { reason: "rate_limit", retryAfterMs: 700 } }),
      ...(isOffline ? [goodbye(agentId)] : []),
    );
    const recoveryAt = told?.exhaustion?.recoveryAt ?? Number.POSITIVE_INFINITY;
    let judgements = 0;
    await replica.committer.submit<void>({
      agentId,
      actor: "server",
      judge(agent, now) {
        judgements += 1;
        const status = agent === undefined ? undefined : judge(agent, now);
        if (agent === undefined || status === undefined) throw new Error("the replica takes the recovery for due");
        const write = { kind: "update", agent, cause: status.cause, status, lease: KEEP_LEASE } as const;
        return { kind: "write", write, result: () => undefined };
      },
    });
    expect((await replica.history(agentId)).at(-1)?.occurredAt).toBeGreaterThanOrEqual(recoveryAt);
    expect(judgements).toBeGreaterThan(1);
    expect(await storyOf(replica, agentId)).toEqual(story);
  });
});
