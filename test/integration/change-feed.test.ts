import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test, vi } from "vitest";
import { openDatabase } from "../../src/storage/database.ts";
import { Notifications } from "../../src/storage/notifications.ts";
import { TransitionLog } from "../../src/storage/transition-log.ts";
import { administer, createTestDatabase } from "../support/cluster.ts";
import { by } from "../support/storage.ts";
import { PATIENCE } from "../support/until.ts";
import { startWatchingReplica, type WatchingReplica } from "../support/watching-replica.ts";

/** Collects the transitions of a replica's feed. */
function follow(replica: WatchingReplica): bigint[] {
  const revisions: bigint[] = [];
  replica.watching.feed.onTransitions((transitions) => {
    revisions.push(...transitions.map(({ revision }) => revision));
  });
  return revisions;
}

async function loggedRevisions(replica: WatchingReplica): Promise<bigint[]> {
  const rows = await replica.query<{ revision: bigint }>("SELECT revision FROM agent_transitions ORDER BY revision");
  return rows.map(({ revision }) => revision);
}

async function createAgents(replica: WatchingReplica, name: string, count: number): Promise<void> {
  const names = Array.from({ length: count }, (_, n) => `${name}-${n}`);
  await Promise.all(
    names.map((agentId) =>
      replica.users.create(
        { username: agentId, email: null, displayName: "", agent: { agentId, clawIdentifier: "claw-a" } },
        by(),
      ),
    ),
  );
}

describe("the change feed", () => {
  test("of every replica emits every transition of all replicas once, in order", async () => {
    await using stack = new AsyncDisposableStack();
    const { url } = stack.use(await createTestDatabase());
    const one = stack.use(await startWatchingReplica(url, { replica: 1 }));
    const two = stack.use(await startWatchingReplica(url, { replica: 2 }));
    const seen = [follow(one), follow(two)];
    for (let round = 0; round < 8; round += 1) {
      await Promise.all([createAgents(one, `one-${round}`, 40), createAgents(two, `two-${round}`, 40)]);
      await Promise.all(
        Array.from({ length: 40 }, (_, n) => [
          one.agents.move(`two-${round}-${n}`, "claw-b", by()),
          two.agents.updateStatus(`one-${round}-${n}`, { status: "busy", holdMs: undefined }, undefined, by()),
        ]).flat(),
      );
    }
    const logged = await loggedRevisions(one);
    expect(logged).toHaveLength(8 * 160);
    for (const revisions of seen) {
      await vi.waitFor(() => expect(revisions).toHaveLength(logged.length), PATIENCE);
      expect(revisions).toEqual(logged);
    }
  });

  test("never misses a transition that commits late, because it waits for the holder of the counter", async () => {
    await using stack = new AsyncDisposableStack();
    const { url } = stack.use(await createTestDatabase());
    const replica = stack.use(await startWatchingReplica(url));
    await createAgents(replica, "early", 1);
    const [early] = await loggedRevisions(replica);
    await vi.waitFor(() => expect(replica.watching.feed.position).toBe(early), PATIENCE);
    const seen = follow(replica);
    // A transaction that has its revision and is slow to commit.
    const slow = await replica.database.commits.connect();
    stack.defer(() => slow.release(true));
    await slow.query("BEGIN");
    const [agent] = await replica.query<{ id: bigint; revision: bigint }>("SELECT id, revision FROM agents");
    const member = { n: 0, kind: "update", id: String(agent?.id), expect_revision: String(agent?.revision) };
    await slow.query("SELECT * FROM commit_changes(1, $1)", [
      JSON.stringify([
        { ...member, quiet: false, cause: "moved", actor: "test", status: "idle", claw_identifier: "claw-b" },
      ]),
    ]);
    const later = createAgents(replica, "later", 3);
    // The feed polls the log repeatedly meanwhile.
    const reads = vi.spyOn(replica.database.feed, "query");
    await vi.waitFor(() => expect(reads.mock.calls.length).toBeGreaterThan(3), PATIENCE);
    reads.mockRestore();
    expect(seen).toEqual([]);
    await slow.query("COMMIT");
    await later;
    const logged = (await loggedRevisions(replica)).slice(1);
    expect(logged).toHaveLength(4);
    await vi.waitFor(() => expect(seen).toEqual(logged), PATIENCE);
  });

  test("needs no notification: all transitions arrive soon although every notification is lost", async () => {
    await using stack = new AsyncDisposableStack();
    const { url } = stack.use(await createTestDatabase());
    const writer = stack.use(await startWatchingReplica(url, { notifies: false }));
    const reader = stack.use(await startWatchingReplica(url, { replica: 2 }));
    const seen = follow(reader);
    for (let n = 1; n <= 5; n += 1) {
      await createAgents(writer, `agent-${n}`, 1);
      await vi.waitFor(() => expect(seen).toHaveLength(n), PATIENCE);
    }
  });

  test("continues after its connections are lost", async () => {
    await using stack = new AsyncDisposableStack();
    const { url } = stack.use(await createTestDatabase());
    const replica = stack.use(await startWatchingReplica(url));
    const seen = follow(replica);
    for (let round = 0; round < 5; round += 1) {
      await createAgents(replica, `agent-${round}`, 20);
      await administer(
        url,
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
         AND application_name IN ('harborforge-agents feed', 'harborforge-agents listen')`,
      );
    }
    await vi.waitFor(() => expect(seen).toHaveLength(100), PATIENCE);
    expect(seen).toEqual(await loggedRevisions(replica));
  });
});

describe("the log of transitions", () => {
  test("is read in pages, with its extent as of the same moment", async () => {
    await using stack = new AsyncDisposableStack();
    const { url } = stack.use(await createTestDatabase());
    const replica = stack.use(await startWatchingReplica(url));
    const log = new TransitionLog(replica.database.feed);
    const begin = await log.newest();
    expect(await log.read(begin, 10)).toEqual({ transitions: [], newest: begin, oldest: begin, gaps: [] });
    await createAgents(replica, "agent", 5);
    const first = await log.read(begin, 3);
    expect(first.transitions.map(({ revision }) => revision - begin)).toEqual([1n, 2n, 3n]);
    expect(first).toMatchObject({ newest: begin + 5n, oldest: begin });
    const rest = await log.read(begin + 3n, 3);
    expect(rest.transitions.map(({ revision }) => revision - begin)).toEqual([4n, 5n]);
    expect(rest.transitions[0]).toMatchObject({
      cause: "created",
      fromStatus: null,
      toStatus: "idle",
      toClaw: "claw-a",
    });
    await replica.query("INSERT INTO revision_jumps VALUES ($1, $2, now())", [begin + 9n, begin + 5n]);
    expect((await log.read(begin, 1)).gaps).toEqual([{ from: begin + 5n, to: begin + 9n }]);
    expect((await log.read(begin + 7n, 1)).gaps).toEqual([{ from: begin + 5n, to: begin + 9n }]);
    expect((await log.read(begin + 9n, 1)).gaps).toEqual([]);
  });

  test("is not opened by a poll that finds nothing new", async () => {
    await using stack = new AsyncDisposableStack();
    const { url } = stack.use(await createTestDatabase());
    const replica = stack.use(await startWatchingReplica(url));
    const begin = await new TransitionLog(replica.database.feed).newest();
    const { readFile } = await import("node:fs/promises");
    const sql = await readFile(new URL("../../src/storage/queries/read-transitions.sql", import.meta.url), "utf8");
    const plan = await replica.query<{ "QUERY PLAN": string }>(`EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) ${sql}`, [
      begin,
      1_000,
    ]);
    const text = plan.map((row) => row["QUERY PLAN"]).join("\n");
    expect(text).toMatch(/One-Time Filter/);
    expect(text).toMatch(/agent_transitions_\d+.*never executed/);
  });
});

describe("notifications", () => {
  test("reach the other replicas at once, not the sender, and are few", async () => {
    await using stack = new AsyncDisposableStack();
    const { url } = stack.use(await createTestDatabase());
    const database = openDatabase({ url, onIdleError: () => undefined });
    stack.defer(() => database.close());
    const heard = { sender: 0, other: 0 };
    const log = { info: () => undefined, warn: () => undefined };
    const open = (onHint: () => void) => {
      const notifications = new Notifications({ database, log, onHint });
      stack.defer(() => notifications.close());
      notifications.start();
      return notifications;
    };
    const sender = open(() => {
      heard.sender += 1;
    });
    open(() => {
      heard.other += 1;
    });
    // The first hint reports that LISTEN has begun.
    await vi.waitFor(() => expect(heard).toEqual({ sender: 1, other: 1 }), PATIENCE);
    const begun = performance.now();
    sender.notify();
    await vi.waitFor(() => expect(heard.other).toBe(2), PATIENCE);
    while (performance.now() - begun < 300) {
      sender.notify();
      await sleep(1);
    }
    // The throttle never drops the last hint.
    await vi.waitFor(() => expect(heard.other).toBeGreaterThan(3), PATIENCE);
    // Some three hundred notifications were requested.
    expect(heard.other).toBeLessThan(20 + (performance.now() - begun) / 20);
    expect(heard.sender).toBe(1);
  });

  test("resume after a lost connection, with a hint for what was missed", async () => {
    await using stack = new AsyncDisposableStack();
    const { url } = stack.use(await createTestDatabase());
    const database = openDatabase({ url, onIdleError: () => undefined });
    stack.defer(() => database.close());
    const lines: string[] = [];
    const say = (_: object, line: string) => {
      lines.push(line);
    };
    let hints = 0;
    const notifications = new Notifications({
      database,
      log: { info: say, warn: say },
      onHint: () => {
        hints += 1;
      },
    });
    stack.defer(() => notifications.close());
    notifications.start();
    for (let round = 1; round <= 2; round += 1) {
      await vi.waitFor(() => expect(hints).toBe(round), PATIENCE);
      await administer(
        url,
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
         AND application_name = 'harborforge-agents listen'`,
      );
    }
    await vi.waitFor(() => expect(hints).toBe(3), PATIENCE);
    expect(lines).toHaveLength(4);
  });

  test("stop while the database is away, and a failed notification has no effect", async () => {
    const database = openDatabase({ url: "postgres://nobody@127.0.0.1:1/none", onIdleError: () => undefined });
    const warn = vi.fn();
    const log = { info: () => undefined, warn };
    const notifications = new Notifications({ database, log, onHint: () => undefined });
    notifications.start();
    notifications.notify();
    notifications.notify();
    await vi.waitFor(() => expect(warn).toHaveBeenCalled(), PATIENCE);
    await notifications.close();
    notifications.notify();
    await database.close();
  });
});
