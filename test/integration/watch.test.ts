import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test, vi } from "vitest";
import type { AgentStatus } from "../../common/contract/enum-names.ts";
import { type AgentFilter, changeType, EVERY_AGENT, predicateOf } from "../../src/domain/filter.ts";
import { TransitionLog } from "../../src/storage/transition-log.ts";
import { administer, createTestDatabase } from "../support/cluster.ts";
import { randomOf, replay } from "../support/fake-log.ts";
import { by } from "../support/storage.ts";
import { PATIENCE, until } from "../support/until.ts";
import { seen, WatchReader, type WatchReaderOptions, watchQuery } from "../support/watch-reader.ts";
import {
  startWatchingReplica,
  type WatchingReplica,
  type WatchingReplicaOptions,
} from "../support/watching-replica.ts";

/** A database with replicas and readers, all closed at the end. */
async function startScene(...options: readonly WatchingReplicaOptions[]) {
  await using stack = new AsyncDisposableStack();
  const { url } = stack.use(await createTestDatabase());
  const start = async (more: WatchingReplicaOptions) => stack.use(await startWatchingReplica(url, more));
  const first = await start(options[0] ?? {});
  const second = options[1] === undefined ? first : await start({ replica: 2, ...options[1] });
  const log = new TransitionLog(first.database.commits);
  const everything = stack.move();
  return {
    url,
    first,
    second,
    log,
    /** The revision before the first transition. */
    begin: await log.newest(),
    /** All transitions. */
    history: async (after: bigint) => (await log.read(after, 100_000)).transitions,
    read: (replica: WatchingReplica, more?: WatchReaderOptions) =>
      everything.use(new WatchReader(replica.watches, { bookmarkMs: 100, ...more })),
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

async function create(replica: WatchingReplica, agentId: string, clawIdentifier = "claw-a"): Promise<void> {
  const username = `user of ${agentId} ${Math.random()}`;
  await replica.users.create({ username, email: null, displayName: "", agent: { agentId, clawIdentifier } }, by());
}

/** The database like a standby that had not received the transitions after `kept`. */
async function loseTail(replica: WatchingReplica, kept: bigint, noted?: "under another server"): Promise<void> {
  await replica.query(
    `WITH l AS (DELETE FROM agent_liveness WHERE revision > $1 RETURNING agent),
       a AS (DELETE FROM agents WHERE revision > $1), t AS (DELETE FROM agent_transitions WHERE revision > $1),
       h AS (UPDATE revision_history SET server_started_at = '-infinity' WHERE $2)
     UPDATE revision_counter SET revision = $1`,
    [kept, noted !== undefined],
  );
}

const STATUSES = ["idle", "busy", "on_call", "offline"] as const;

/** Agents that are created, changed, moved, deleted and created again in turn. Rejections are part of it. */
async function write(replica: WatchingReplica, seed: number, rounds: number): Promise<void> {
  const random = randomOf(seed);
  const pick = <Item>(items: readonly [Item, ...Item[]]): Item =>
    items[Math.floor(random() * items.length)] ?? items[0];
  const change = (agentId: string): Promise<unknown> => {
    const dice = random();
    if (dice < 0.25) return create(replica, agentId, pick(["claw-a", "claw-b"]));
    if (dice < 0.35) return replica.agents.delete(agentId, by());
    if (dice < 0.55) return replica.agents.move(agentId, pick(["claw-a", "claw-b"]), by());
    return replica.agents.updateStatus(agentId, { status: pick(STATUSES), holdMs: 0 }, undefined, by());
  };
  for (let round = 0; round < rounds; round += 1) {
    const agentIds = Array.from({ length: 1 + Math.floor(random() * 6) }, () => `agent-${Math.floor(random() * 60)}`);
    const outcomes = await Promise.allSettled(agentIds.map(change));
    for (const outcome of outcomes) {
      if (outcome.status === "rejected" && outcome.reason?.name !== "Refusal") throw outcome.reason;
    }
  }
}

const FILTERS: readonly Partial<AgentFilter>[] = [
  {},
  { clawIdentifiers: ["claw-a"] },
  { statuses: ["busy", "idle"], clawIdentifiers: ["claw-b", "claw-c"] },
  { agentIds: Array.from({ length: 20 }, (_, n) => `agent-${n}`) },
];

describe("a snapshot during changes of agents", () => {
  test.each([1, 2, 3])("equals the log, and the following changes are exactly the rest (seed %i)", async (seed) => {
    // Small pages: many of them, with changes in between.
    await using scene = await startScene({ pageSize: 7 }, { pageSize: 4, notifies: false });
    const { first, second, begin } = scene;
    await write(first, seed, 60);
    const writers = [write(first, seed + 100, 120), write(second, seed + 200, 120)];
    const random = randomOf(seed + 300);
    const readers: { reader: WatchReader; filter: AgentFilter }[] = [];
    for (let n = 0; n < 24; n += 1) {
      const filter = { ...EVERY_AGENT, ...FILTERS[n % FILTERS.length] };
      const pace = () => sleep(random() * 6);
      readers.push({ reader: scene.read(n % 2 === 0 ? first : second, { filter, pace }), filter });
      await sleep(random() * 20);
    }
    await Promise.all(writers);
    const transitions = await scene.history(begin);
    const newest = await scene.log.newest();
    for (const { reader, filter } of readers) {
      await reader.until(({ revision }) => revision === newest);
      const at = reader.snapshotRevision ?? 0n;
      expect(reader.snapshot).toEqual(replay(transitions, at, filter).map(seen).sort());
      const passes = predicateOf(filter);
      const rest = transitions.filter((one) => one.revision > at && changeType(one, passes) !== undefined);
      expect(reader.revisions).toEqual(rest.map(({ revision }) => revision));
      expect(reader.texts).toEqual(replay(transitions, newest, filter).map(seen).sort());
    }
  });

  test("equals the database, by every field of a filter", async () => {
    await using scene = await startScene({});
    const { first } = scene;
    for (const name of ["one", "two", "three"]) await create(first, name, name === "two" ? "claw-b" : "claw-a");
    await first.agents.updateStatus("three", { status: "busy", holdMs: undefined }, undefined, by());
    const { userId } = await first.agents.get({ agentId: "two" });
    const cases: [Partial<AgentFilter>, readonly string[]][] = [
      [{}, ["one", "three", "two"]],
      [{ agentIds: ["one", "nobody"] }, ["one"]],
      [{ userIds: [userId] }, ["two"]],
      [{ clawIdentifiers: ["claw-a"] }, ["one", "three"]],
      [{ statuses: ["busy", "exhausted"] }, ["three"]],
      [{ clawIdentifiers: ["claw-a"], statuses: ["idle"] }, ["one"]],
      [{ clawIdentifiers: ["claw-b"], statuses: ["busy"] }, []],
    ];
    for (const [filter, names] of cases) {
      const reader = scene.read(first, { filter });
      await reader.until(({ snapshot }) => snapshot !== undefined);
      expect([...reader.set.keys()].sort()).toEqual(names);
      expect(reader.messages).toHaveLength(1);
    }
    const whole = scene.read(first, { filter: { agentIds: ["two"] } });
    await whole.until(({ snapshot }) => snapshot !== undefined);
    const [two] = whole.messages[0]?.snapshotAgents ?? [];
    expect(await first.agents.get({ agentId: "two" })).toMatchObject({ ...two });
    // No clocks that move without transitions.
    expect(two).not.toHaveProperty("leaseExpiresAt");
  });
});

describe("a watch that resumes", () => {
  test("gets exactly the rest after every revision, on either replica", async () => {
    await using scene = await startScene({ ringCapacity: 30, pageSize: 10 }, { ringCapacity: 50, pageSize: 13 });
    const { first, second, begin } = scene;
    await write(first, 11, 40);
    const transitions = await scene.history(begin);
    const newest = await scene.log.newest();
    for (const replica of [first, second]) {
      await vi.waitFor(() => expect(replica.watching.feed.position).toBe(newest), PATIENCE);
      for (const [place, after] of [begin, ...transitions.map(({ revision }) => revision)].entries()) {
        const filter = { ...EVERY_AGENT, ...FILTERS[place % FILTERS.length] };
        await using reader = new WatchReader(replica.watches, { afterRevision: after, filter, bookmarkMs: 5 });
        await reader.until(({ revision }) => revision === newest);
        const passes = predicateOf(filter);
        const rest = transitions.filter((one) => one.revision > after && changeType(one, passes) !== undefined);
        expect(reader.revisions).toEqual(rest.map(({ revision }) => revision));
      }
    }
  });

  test("again and again, at any point and on any replica, misses nothing", async () => {
    await using scene = await startScene({ ringCapacity: 20, pageSize: 5 }, { ringCapacity: 20, pageSize: 5 });
    const { first, second, begin } = scene;
    const random = randomOf(5);
    const writing = write(first, 21, 150);
    let over = false;
    void writing.then(() => {
      over = true;
    });
    const heard: bigint[] = [];
    let after = begin;
    for (let n = 0; ; n += 1) {
      const last = over;
      const replica = n % 2 === 0 ? first : second;
      const newest = await scene.log.newest();
      await using reader = new WatchReader(replica.watches, { afterRevision: after, bookmarkMs: 5 });
      if (last) await reader.until(({ revision }) => revision === newest);
      else await sleep(random() * 30);
      heard.push(...reader.revisions);
      after = reader.revision;
      if (last) break;
    }
    await writing;
    expect(heard).toEqual((await scene.history(begin)).map(({ revision }) => revision));
  });

  test("is rejected when the database cannot serve it", async () => {
    await using scene = await startScene({ ringCapacity: 2 });
    const { first, begin } = scene;
    for (let n = 0; n < 8; n += 1) await create(first, `agent-${n}`);
    const newest = await scene.log.newest();
    await first.query("UPDATE revision_counter SET oldest = $1", [begin + 3n]);
    await first.query("INSERT INTO revision_jumps VALUES ($1, $2, now())", [begin + 5n, begin + 4n]);
    const ending = async (afterRevision: bigint) => await scene.read(first, { afterRevision }).end();
    const compacted = { reason: "REVISION_COMPACTED", metadata: { oldestRevision: String(begin + 3n) } };
    expect(await ending(0n)).toMatchObject(compacted);
    expect(await ending(begin + 2n)).toMatchObject(compacted);
    expect(await ending(newest + 1n)).toMatchObject({
      reason: "REVISION_IN_FUTURE",
      metadata: { newestRevision: String(newest) },
    });
    const kept = scene.read(first, { afterRevision: begin + 3n });
    await kept.until(({ revision }) => revision === newest);
    expect(kept.revisions).toHaveLength(5);
    await first.query("UPDATE revision_jumps SET to_revision = $1", [begin + 6n]);
    expect(await ending(begin + 5n)).toMatchObject(compacted);
  });
});

describe("the change type of a filtered watch", () => {
  test("is entered, updated or left, by creation, status, move and deletion", async () => {
    await using scene = await startScene({}, {});
    const { first, second } = scene;
    const claw = scene.read(second, { filter: { clawIdentifiers: ["claw-a"] } });
    const busy = scene.read(second, { filter: { statuses: ["busy"] } });
    for (const reader of [claw, busy]) await reader.until(({ snapshot }) => snapshot !== undefined);
    await create(first, "roamer", "claw-a");
    await first.agents.updateStatus("roamer", { status: "busy", holdMs: undefined }, undefined, by());
    await first.agents.move("roamer", "claw-b", by());
    await first.agents.move("roamer", "claw-a", by());
    await first.agents.updateStatus("roamer", { status: "offline", holdMs: undefined }, undefined, by());
    await first.agents.delete("roamer", by());
    await create(first, "roamer", "claw-a");
    const told = (reader: WatchReader) => reader.changes.map(({ type, transition }) => `${type} ${transition.cause}`);
    const newest = await scene.log.newest();
    for (const reader of [claw, busy]) await reader.until(({ revision }) => revision === newest);
    expect(told(claw)).toEqual([
      "entered created",
      "updated service",
      "left moved",
      "entered moved",
      "updated service",
      "left deleted",
      "entered created",
    ]);
    expect(told(busy)).toEqual(["entered service", "updated moved", "updated moved", "left service"]);
    const [before, after] = [claw.changes[5], claw.changes[6]];
    expect(after?.transition.id).not.toBe(before?.transition.id);
  });
});

describe("an open watch", () => {
  test("is woken by a change on another replica", async () => {
    await using scene = await startScene({}, {});
    const { first, second } = scene;
    await create(first, "agent");
    const reader = scene.read(second, { bookmarkMs: 60_000 });
    await reader.until(({ snapshot }) => snapshot !== undefined);
    // A poll would find it, too, but later: the notification wakes the feed.
    const woken = vi.spyOn(second.watching.feed, "wake");
    for (let n = 1; n <= 20; n += 1) {
      const before = woken.mock.calls.length;
      const status: AgentStatus = n % 2 === 0 ? "idle" : "busy";
      await first.agents.updateStatus("agent", { status, holdMs: 0 }, undefined, by());
      await reader.until(({ revisions }) => revisions.length === n);
      await until("the notification comes", () => woken.mock.calls.length > before);
    }
  });

  test("stays open while its replica's connections break, and misses nothing", async () => {
    await using scene = await startScene({ pageSize: 5 }, { pageSize: 5 });
    const { first, second, begin } = scene;
    await write(first, 31, 10);
    const live = scene.read(second, { afterRevision: begin });
    await live.until(({ messages }) => messages.length > 0);
    const readers = [live];
    for (let round = 0; round < 6; round += 1) {
      const writing = write(first, 40 + round, 15);
      await administer(
        scene.url,
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
         AND application_name IN ('harborforge-agents feed', 'harborforge-agents listen')`,
      );
      await writing;
      // It has received a message when the next round cuts its connections.
      const reader = scene.read(second, { pace: () => sleep(5) });
      await reader.until(({ messages }) => messages.length > 0);
      readers.push(reader);
    }
    const newest = await scene.log.newest();
    const transitions = await scene.history(begin);
    for (const reader of readers) await reader.until(({ revision }) => revision === newest);
    expect(live.revisions).toEqual(transitions.map(({ revision }) => revision));
    const expected = replay(transitions, newest, EVERY_AGENT).map(seen).sort();
    for (const reader of readers.slice(1)) expect(reader.texts).toEqual(expected);
  });

  test("without a reader ends alone, with the revision to resume from", async () => {
    await using scene = await startScene({ queueLimit: 20 });
    const { first } = scene;
    await create(first, "agent");
    const abort = new AbortController();
    const idle = first.watches.watch(watchQuery(), abort.signal)[Symbol.asyncIterator]();
    const { value } = await idle.next();
    const quick = scene.read(first);
    await quick.until(({ snapshot }) => snapshot !== undefined);
    for (let n = 0; n < 30; n += 1) {
      await first.agents.updateStatus("agent", { status: n % 2 === 0 ? "busy" : "idle", holdMs: 0 }, undefined, by());
    }
    await quick.until(({ revisions }) => revisions.length === 30);
    await expect(idle.next()).rejects.toMatchObject({
      reason: "WATCHER_TOO_SLOW",
      metadata: { revision: String(value?.revision) },
    });
    const again = scene.read(first, { afterRevision: value?.revision ?? 0n });
    await again.until(({ revisions }) => revisions.length === 30);
  });

  test("ends when its replica drains, and resumes elsewhere", async () => {
    await using scene = await startScene({}, {});
    const { first, second } = scene;
    await create(first, "agent");
    const reader = scene.read(first);
    await reader.until(({ snapshot }) => snapshot !== undefined);
    first.watching.drain();
    const refusal = await reader.end();
    expect(refusal).toMatchObject({ reason: "DRAINING", retryAfterMs: expect.any(Number) });
    expect(first.watches.size).toBe(0);
    await create(second, "another");
    const again = scene.read(second, { afterRevision: reader.revision });
    await again.until(({ revisions }) => revisions.length === 1);
  });
});

describe("a lost history", () => {
  test("is never served as the present: watchers start again", async () => {
    await using scene = await startScene({}, {});
    const { first, second } = scene;
    await create(first, "agent");
    const kept = await scene.log.newest();
    await create(first, "lost");
    const reader = scene.read(second);
    await reader.until(({ snapshot }) => snapshot?.length === 2);
    await loseTail(first, kept, "under another server");
    await create(first, "found");
    expect(await reader.end()).toMatchObject({ reason: "REVISION_COMPACTED" });
    const resumed = scene.read(second, { afterRevision: reader.revision });
    expect(await resumed.end()).toMatchObject({ reason: "REVISION_COMPACTED" });
    const lucky = scene.read(second, { afterRevision: kept });
    await lucky.until(({ revisions }) => revisions.length === 1);
    const again = scene.read(second);
    await again.until(({ snapshot }) => snapshot !== undefined);
    expect([...again.set.keys()].sort()).toEqual(["agent", "found"]);
  });

  test("is detected before the first transition of the new one, by the first replica that reads", async () => {
    await using scene = await startScene({});
    const { first } = scene;
    await create(first, "agent");
    const kept = await scene.log.newest();
    await create(first, "lost");
    const lost = await scene.log.newest();
    const reader = scene.read(first);
    await reader.until(({ snapshot }) => snapshot?.length === 2);
    await loseTail(first, kept, "under another server");
    const asked = scene.read(first, { afterRevision: lost });
    expect(await asked.end()).toMatchObject({ reason: "REVISION_COMPACTED" });
    expect(await reader.end()).toMatchObject({ reason: "REVISION_COMPACTED" });
    const again = scene.read(first);
    await again.until(({ snapshot }) => snapshot !== undefined);
    expect([...again.set.keys()]).toEqual(["agent"]);
    expect(again.snapshotRevision).toBeGreaterThan(lost);
    await create(first, "found");
    await again.until(({ revisions }) => revisions.length === 1);
    expect(await first.query("SELECT from_revision FROM revision_jumps")).toEqual([{ from_revision: kept }]);
  });

  test("of the same server and database is detected by a replica with newer data", async () => {
    await using scene = await startScene({});
    const { first } = scene;
    await create(first, "agent");
    const kept = await scene.log.newest();
    await create(first, "lost");
    const lost = await scene.log.newest();
    const reader = scene.read(first);
    await reader.until(({ snapshot }) => snapshot?.length === 2);
    await loseTail(first, kept);
    expect(await reader.end()).toMatchObject({ reason: "REVISION_COMPACTED" });
    expect(await scene.read(first, { afterRevision: lost }).end()).toMatchObject({ reason: "REVISION_COMPACTED" });
    const jumps = await first.query<{ to_revision: bigint }>("SELECT to_revision FROM revision_jumps");
    expect(jumps).toHaveLength(1);
    expect(jumps[0]?.to_revision).toBeGreaterThan(lost);
  });
});
