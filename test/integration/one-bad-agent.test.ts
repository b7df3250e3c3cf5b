import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { type AgentWrite, KEEP_LEASE } from "../../src/storage/agent-change.ts";
import type { Change } from "../../src/storage/committer.ts";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { RowLocks } from "../support/gate-locks.ts";
import { openReplica, type Replica } from "../support/replica.ts";
import { alive, reports } from "../support/replica-stream.ts";
import { openStorage } from "../support/storage.ts";

/** Other calls are served within this time, though the database waits two seconds for a lock. */
const PATIENCE_MS = 20_000;
const OTHERS = ["other-1", "other-2", "other-3", "other-4", "other-5"];

let testDatabase: TestDatabase;
let replica: Replica;
let locks: RowLocks;
let made = 0;
beforeAll(async () => {
  testDatabase = await createTestDatabase();
  replica = await openReplica(testDatabase.url);
  locks = await RowLocks.open(testDatabase.url);
});
afterEach(() => locks.commit());
afterAll(async () => {
  await locks[Symbol.asyncDispose]();
  await replica[Symbol.asyncDispose]();
  await testDatabase.drop();
});

async function createAgents(): Promise<{ bad: string; others: string[] }> {
  made += 1;
  const bad = `bad-${made}`;
  const others = OTHERS.map((name) => `${name}-${made}`);
  for (const agentId of [bad, ...others]) await replica.createAgent(agentId);
  return { bad, others };
}

/** A change of the service itself, which is retried until the database accepts it. */
function move(agentId: string): Change<string> {
  return {
    agentId,
    actor: "server",
    judge(agent) {
      if (agent === undefined) throw new Error("there is no such agent");
      const write: AgentWrite = { kind: "update", agent, cause: "moved", clawIdentifier: "claw-2", lease: KEEP_LEASE };
      return { kind: "write", write, result: (committed) => committed.agent.clawIdentifier };
    },
  };
}

describe("an agent whose row another client has locked for long", () => {
  test("does not delay changes of other agents, and is changed when the lock is released", {
    timeout: 60_000,
  }, async () => {
    const { bad, others } = await createAgents();
    await locks.takeLiveness(bad);
    let moved = false;
    const first = replica.committer.submit(move(bad)).then(() => (moved = true));
    const settled = Promise.all(others.map((agentId) => replica.committer.submit(move(agentId))));
    await expect(within(settled)).resolves.toEqual(others.map(() => "claw-2"));
    // Also changes that arrive later, while it still waits.
    const { others: later } = await createAgents();
    await within(Promise.all(later.map((agentId) => replica.committer.submit(move(agentId)))));
    expect(moved).toBe(false);
    await locks.commit();
    await within(first);
  });

  test("does not delay heartbeats of other agents", { timeout: 60_000 }, async () => {
    const { bad, others } = await createAgents();
    using stream = replica.stream({ clawIdentifier: "claw-1", instanceId: "process-1" });
    using badStream = replica.stream({ clawIdentifier: "claw-1", instanceId: "process-2" });
    await badStream.say(reports(bad, "idle"));
    await stream.say(...others.map((agentId) => reports(agentId, "idle")));
    await locks.takeLiveness(bad);
    const waiting = badStream.send(alive(bad));
    const sequence = stream.send(...others.map(alive));
    await stream.acknowledgedUpTo(sequence, PATIENCE_MS);
    expect(badStream.acknowledged).toBeLessThan(waiting);
    for (let n = 0; n < 3; n += 1) await stream.acknowledgedUpTo(stream.send(...others.map(alive)), PATIENCE_MS);
    await locks.commit();
    await badStream.acknowledgedUpTo(waiting, PATIENCE_MS);
  });

  test("does not delay claims of other agents", { timeout: 60_000 }, async () => {
    const { bad, others } = await createAgents();
    using stream = replica.stream({ clawIdentifier: "claw-1", instanceId: "process-1" });
    using badStream = replica.stream({ clawIdentifier: "claw-1", instanceId: "process-2" });
    await locks.takeLiveness(bad);
    const waiting = badStream.send(alive(bad));
    await stream.acknowledgedUpTo(stream.send(...others.map(alive)), PATIENCE_MS);
    await locks.commit();
    await badStream.acknowledgedUpTo(waiting, PATIENCE_MS);
  });
});

describe("an agent whose change fails with an unknown error", () => {
  test("does not delay changes of other agents, and the replica can stop", { timeout: 60_000 }, async () => {
    const { bad, others } = await createAgents();
    const { id } = await replica.agents.get({ agentId: bad });
    const query = Reflect.get(pg.Client.prototype, "query");
    const spy = vi.spyOn(pg.Client.prototype, "query").mockImplementation(function (
      this: pg.Client,
      ...given: unknown[]
    ): unknown {
      const [config] = given;
      const isBad = JSON.stringify(config).includes(`\\"id\\":\\"${id}\\"`);
      return isBad ? Promise.reject(new Error("an error that nobody listed")) : Reflect.apply(query, this, given);
    });
    try {
      await using storage = openStorage(testDatabase.url, replica.number);
      const { committer } = storage;
      const first = expect(committer.submit(move(bad))).rejects.toMatchObject({ reason: "DATABASE_UNAVAILABLE" });
      const moved = await within(Promise.all(others.map((agentId) => committer.submit(move(agentId)))));
      expect(moved).toEqual(others.map(() => "claw-2"));
      expect(spy.mock.calls.length).toBeGreaterThan(0);
      expect(committer.waiting).toBe(1);
      await within(committer.close());
      await first;
      expect(committer.waiting).toBe(0);
    } finally {
      spy.mockRestore();
    }
  });
});

async function within<Result>(work: Promise<Result>): Promise<Result> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("held up")), PATIENCE_MS);
  });
  return await Promise.race([work, late]).finally(() => clearTimeout(timer));
}
