import { setTimeout as sleep, setImmediate as turn } from "node:timers/promises";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { type AgentFilter, changeType, EVERY_AGENT, predicateOf } from "../../src/domain/filter.ts";
import { randomOf, replay } from "../support/fake-log.ts";
import { PATIENCE } from "../support/until.ts";
import { seen, watchQuery } from "../support/watch-reader.ts";
import { changeSomething, startScene, turnsOf } from "../support/watch-scene.ts";

const FILTERS: readonly Partial<AgentFilter>[] = [
  {},
  { clawIdentifiers: ["claw-a"] },
  { statuses: ["busy", "idle"] },
  { agentIds: ["agent-1", "agent-2", "agent-3", "agent-4"], statuses: ["idle"] },
];

/** The test's own clock for all objects created from now on, until it ends. */
function ownTime(): void {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  onTestFinished(() => {
    vi.useRealTimers();
  });
}

describe("a watch that begins with a snapshot", () => {
  it.each(
    Array.from({ length: 24 }, (_, seed) => seed),
  )("equals the log at its bookmark and gets exactly the rest, whatever changes meanwhile (seed %i)", async (seed) => {
    const random = randomOf(seed);
    await using scene = await startScene({ queueLimit: 1_000 });
    const { source } = scene;
    const turns = turnsOf(random);
    source.delay = () => turns(6);
    for (let n = 0; n < 12; n += 1) changeSomething(source, random);
    const filters = FILTERS.map((filter) => ({ ...EVERY_AGENT, ...filter }));
    await using stack = new AsyncDisposableStack();
    const readers = filters.map((filter) => stack.use(scene.read({ filter, bookmarkMs: 30, pace: () => turns(5) })));
    for (let n = 0; n < 150; n += 1) {
      changeSomething(source, random);
      if (random() < 0.5) scene.feed.wake();
      await turns(5);
    }
    await scene.settle();
    for (const [place, reader] of readers.entries()) {
      await reader.until(({ revision }) => revision === source.revision);
      const filter = filters[place] ?? EVERY_AGENT;
      const at = reader.snapshotRevision ?? 0n;
      expect(reader.snapshot).toEqual(replay(source.transitions, at, filter).map(seen).sort());
      const passes = predicateOf(filter);
      const rest = source.transitions.filter((one) => one.revision > at && changeType(one, passes) !== undefined);
      expect(reader.revisions).toEqual(rest.map(({ revision }) => revision));
      expect(reader.texts).toEqual([...source.agents.values()].filter(passes).map(seen).sort());
    }
  });

  it("shows an agent_id that moved on to another agent only after it has left", async () => {
    await using scene = await startScene({ pageSize: 1 });
    const { source } = scene;
    const first = source.create("moving");
    source.create("other");
    await scene.settle();
    let release = () => {};
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    await using reader = scene.read({ pace: () => gate });
    await reader.until(({ messages }) => messages.length === 1);
    source.delete(first);
    source.create("moving");
    release();
    await reader.until(({ snapshot }) => snapshot !== undefined);
    expect(reader.snapshot).toEqual(["moving #3 claw-a idle @104", "other #2 claw-a idle @102"]);
  });

  it("is complete at once without agents", async () => {
    await using scene = await startScene();
    await using reader = scene.read({ filter: { agentIds: ["nobody"] } });
    await reader.until(({ messages }) => messages.length > 0);
    expect(reader.messages).toEqual([
      { revision: 100n, snapshotAgents: [], changes: [], bookmark: { snapshotComplete: true } },
    ]);
  });

  it.each([
    true,
    false,
  ])("sends no page after the watch has ended, since it dropped the changes before the page (conflate: %s)", async (conflate) => {
    await using scene = await startScene({ pageSize: 1, queueLimit: 1 });
    const { source, hub } = scene;
    for (const agentId of ["first", "second"]) source.create(agentId);
    await scene.settle();
    const { awaitPosition } = hub;
    let pages = 0;
    // The feed and the drain come right after the wait for the page's revision.
    vi.spyOn(hub, "awaitPosition").mockImplementation((watcher, position) => {
      awaitPosition.call(hub, watcher, position);
      if (position !== undefined || ++pages < 2) return;
      for (const { id } of [...source.agents.values()]) source.change(id, { status: "busy" });
      hub.onTransitions(source.transitions.slice(-2), source.revision);
      hub.drain();
    });
    await using reader = scene.read({ conflate });
    await vi.waitFor(() => expect(reader.ended).toBe(true), PATIENCE);
    expect(reader.error).toMatchObject({ reason: conflate ? "DRAINING" : "WATCHER_TOO_SLOW" });
    expect(reader.messages).toHaveLength(1);
    expect(reader.snapshot).toBeUndefined();
  });

  it("reads a page only when the one before was sent", async () => {
    await using scene = await startScene({ pageSize: 2 });
    for (let n = 0; n < 9; n += 1) scene.source.create(`agent-${n}`);
    const abort = new AbortController();
    const stream = scene.watches.watch(watchQuery(), abort.signal)[Symbol.asyncIterator]();
    for (const asked of [1, 2, 3]) {
      await stream.next();
      for (let n = 0; n < 20; n += 1) await turn();
      expect(scene.source.pages).toBe(asked);
    }
    abort.abort();
    expect(await stream.next()).toEqual({ done: true, value: undefined });
    expect(scene.hub.size).toBe(0);
  });

  it("sends headers when the first page takes long, and waits for an absent database then", async () => {
    await using scene = await startScene();
    const { source } = scene;
    source.create("one");
    let release = () => {};
    const slow = new Promise<void>((resolve) => {
      release = resolve;
    });
    source.delay = () => slow;
    await using reader = scene.read({ bookmarkMs: 20 });
    await reader.until(({ messages }) => messages.length > 2);
    expect(reader.messages[0]).toMatchObject({ revision: 0n, bookmark: { snapshotComplete: false } });
    source.failure = new Error("Connection terminated");
    source.delay = () => Promise.resolve();
    release();
    const before = reader.messages.length;
    await reader.until(({ messages }) => messages.length > before + 5);
    expect(reader.snapshot).toBeUndefined();
    source.failure = undefined;
    await reader.until(({ snapshot }) => snapshot?.length === 1);
  });

  it("is rejected when the database is absent before the first message", async () => {
    await using scene = await startScene();
    scene.source.failure = new Error("Connection terminated");
    await using reader = scene.read();
    expect(await reader.end()).toMatchObject({ reason: "DATABASE_UNAVAILABLE", retryAfterMs: 1_000 });
    expect(scene.hub.size).toBe(0);
  });

  it("starts again when it is read too slowly, without a revision to resume from", async () => {
    await using scene = await startScene({ pageSize: 2, queueLimit: 5 });
    const { source } = scene;
    const ids = Array.from({ length: 6 }, (_, n) => source.create(`agent-${n}`));
    await scene.settle();
    const abort = new AbortController();
    const stream = scene.watches.watch(watchQuery(), abort.signal)[Symbol.asyncIterator]();
    await stream.next();
    // Agents that no page has shown yet take no capacity.
    for (let n = 0; n < 20; n += 1) source.change(ids[5] ?? 0n, { status: n % 2 === 0 ? "busy" : "idle" });
    await scene.settle();
    expect((await stream.next()).value).toMatchObject({ revision: 0n, snapshotAgents: [{}, {}] });
    for (let n = 0; n < 6; n += 1) source.change(ids[0] ?? 0n, { status: n % 2 === 0 ? "busy" : "idle" });
    await scene.settle();
    await expect(stream.next()).rejects.toMatchObject({ reason: "WATCHER_TOO_SLOW", metadata: { revision: "0" } });
  });
});

describe("a watch that resumes", () => {
  it("gets exactly the rest after every revision, from memory or from the log", async () => {
    await using scene = await startScene({ ringCapacity: 20 });
    const { source } = scene;
    const random = randomOf(7);
    for (let n = 0; n < 50; n += 1) changeSomething(source, random);
    await scene.settle();
    for (let after = 100n; after <= source.revision; after += 1n) {
      for (const filter of FILTERS) {
        await using reader = scene.read({ afterRevision: after, filter, bookmarkMs: 10 });
        await reader.until(({ revision }) => revision === source.revision);
        const passes = predicateOf({ ...EVERY_AGENT, ...filter });
        const rest = source.transitions.filter((one) => one.revision > after && changeType(one, passes) !== undefined);
        expect(reader.revisions).toEqual(rest.map(({ revision }) => revision));
      }
    }
  });

  it.each(
    Array.from({ length: 10 }, (_, seed) => seed),
  )("misses nothing and gets nothing twice while the log grows (seed %i)", async (seed) => {
    const random = randomOf(seed + 1_000);
    await using scene = await startScene({ ringCapacity: 10, queueLimit: 1_000 });
    const { source } = scene;
    const turns = turnsOf(random);
    for (let n = 0; n < 40; n += 1) changeSomething(source, random);
    await scene.settle();
    source.delay = () => turns(6);
    const starts = [100n, 110n, 130n, 139n, 140n];
    await using stack = new AsyncDisposableStack();
    const readers = starts.map((after) => stack.use(scene.read({ afterRevision: after, pace: () => turns(4) })));
    for (let n = 0; n < 80; n += 1) {
      changeSomething(source, random);
      if (random() < 0.3) scene.feed.wake();
      await turns(5);
    }
    await scene.settle();
    for (const [place, reader] of readers.entries()) {
      await reader.until(({ revision }) => revision === source.revision);
      const after = starts[place] ?? 0n;
      expect(reader.revisions).toEqual(
        source.transitions.filter(({ revision }) => revision > after).map(({ revision }) => revision),
      );
    }
  });

  it("needs no database when the ring reaches back far enough", async () => {
    await using scene = await startScene();
    const { source } = scene;
    source.create("one");
    source.create("two");
    await scene.settle();
    source.failure = new Error("Connection terminated");
    await using reader = scene.read({ afterRevision: 101n, bookmarkMs: 20 });
    await reader.until(({ messages }) => messages.length > 4);
    expect(reader.revisions).toEqual([102n]);
    expect(reader.messages.at(-1)).toEqual({
      revision: 102n,
      snapshotAgents: [],
      changes: [],
      bookmark: { snapshotComplete: false },
    });
  });

  it("is notified at once that it is up to date", async () => {
    await using scene = await startScene();
    // Not by a bookmark: none is due for a minute.
    await using reader = scene.read({ afterRevision: 100n, bookmarkMs: 60_000 });
    await reader.until(({ messages }) => messages.length === 1);
    expect(reader.messages[0]).toMatchObject({ revision: 100n, bookmark: { snapshotComplete: false } });
  });

  it("gets nothing that the feed has not read, because the replica could not retract it", async () => {
    await using scene = await startScene({ pageSize: 10 });
    const { source, hub } = scene;
    await scene.feed.close();
    for (const name of ["one", "two", "three"]) source.create(name);
    await using ahead = scene.read({ afterRevision: 102n });
    await using begun = scene.read({ bookmarkMs: 20 });
    await begun.until(({ messages }) => messages.length > 2);
    expect(ahead.messages).toHaveLength(1);
    expect(begun.set.size).toBe(0);
    hub.onTransitions(source.transitions.slice(0, 2), 102n);
    hub.onTransitions(source.transitions.slice(2), 103n);
    source.create("four");
    hub.onTransitions(source.transitions.slice(3), 104n);
    await ahead.until(({ revision }) => revision === 104n);
    await begun.until(({ revision }) => revision === 104n);
    expect(ahead.revisions).toEqual([103n, 104n]);
    expect(begun.revisions).toEqual([104n]);
  });

  it("is rejected from a lost history also when the ring reaches back before it", async () => {
    await using scene = await startScene();
    const { source } = scene;
    source.gaps.push({ from: 100n, to: 5_000n });
    source.revision = 5_000n;
    source.create("one");
    await scene.settle();
    for (const after of [101n, 4_999n]) {
      await using reader = scene.read({ afterRevision: after });
      expect(await reader.end()).toMatchObject({ reason: "REVISION_COMPACTED" });
    }
    for (const after of [100n, 5_000n]) {
      await using reader = scene.read({ afterRevision: after });
      await reader.until(({ revisions }) => revisions.length === 1);
    }
  });

  it("ends when its awaited revision belongs to a lost history", async () => {
    await using scene = await startScene();
    const { source, hub } = scene;
    await scene.feed.close();
    source.create("one");
    source.create("two");
    await using resumed = scene.read({ afterRevision: 102n, bookmarkMs: 10 });
    await using begun = scene.read({ bookmarkMs: 10 });
    await begun.until(({ messages }) => messages.length > 0);
    await resumed.until(({ messages }) => messages.length > 0);
    hub.onGap({ from: 101n, to: 9_000n });
    hub.onTransitions(source.transitions.slice(0, 1), 9_000n);
    expect(await begun.end()).toMatchObject({ reason: "REVISION_COMPACTED" });
    expect(await resumed.end()).toMatchObject({ reason: "REVISION_COMPACTED" });
  });

  it("ends when its awaited revision is of a history before the last lost one", async () => {
    await using scene = await startScene();
    const { source, hub } = scene;
    await scene.feed.close();
    source.create("one");
    source.create("two");
    await using begun = scene.read({ bookmarkMs: 10 });
    await begun.until(({ messages }) => messages.length > 0);
    hub.onGap({ from: 101n, to: 9_000n });
    hub.onGap({ from: 9_001n, to: 20_000n });
    hub.onTransitions(source.transitions.slice(0, 1), 20_000n);
    expect(await begun.end()).toMatchObject({ reason: "REVISION_COMPACTED" });
  });

  it("continues when its awaited revision is between two gaps that the feed passes at once", async () => {
    await using scene = await startScene();
    const { source } = scene;
    source.gaps.push({ from: 100n, to: 5_000n });
    const held = Promise.withResolvers<void>();
    await scene.settle();
    // The feed reads nothing until it is released. Snapshots use another query.
    const { read } = source;
    source.read = async (after, limit) => {
      await held.promise;
      return await read.call(source, after, limit);
    };
    source.revision = 5_000n;
    source.create("one");
    await using begun = scene.read({ bookmarkMs: 10 });
    await begun.until(({ messages }) => messages.length > 0);
    source.gaps.push({ from: 5_001n, to: 9_000n });
    source.revision = 9_000n;
    source.create("two");
    held.resolve();
    await begun.until(({ revision }) => revision === 9_001n);
    expect(begun.set.size).toBe(2);
  });

  it.each<[string, bigint, object]>([
    ["not assigned yet", 104n, { reason: "REVISION_IN_FUTURE", metadata: { newestRevision: "103" } }],
    ["no longer kept", 49n, { reason: "REVISION_COMPACTED", metadata: { oldestRevision: "50" } }],
    ["just inside a lost history", 61n, { reason: "REVISION_COMPACTED", metadata: { oldestRevision: "50" } }],
    ["at the end of a lost history", 89n, { reason: "REVISION_COMPACTED", metadata: { oldestRevision: "50" } }],
  ])("is rejected from a revision that is %s", async (_, after, refusal) => {
    await using scene = await startScene();
    const { source } = scene;
    source.oldest = 50n;
    source.gaps.push({ from: 60n, to: 90n });
    for (const name of ["one", "two", "three"]) source.create(name);
    await scene.settle();
    await using reader = scene.read({ afterRevision: after });
    expect(await reader.end()).toMatchObject(refusal);
    expect(reader.messages).toEqual([]);
  });

  it.each([50n, 60n, 90n])("is served from the edge of the kept log (%i)", async (after) => {
    await using scene = await startScene();
    const { source } = scene;
    source.oldest = 50n;
    source.gaps.push({ from: 60n, to: 90n });
    source.create("one");
    await using reader = scene.read({ afterRevision: after });
    await reader.until(({ revisions }) => revisions.length === 1);
  });
});

describe("an open watch", () => {
  it("gets its progress although no transition passes its filter", async () => {
    await using scene = await startScene();
    await using reader = scene.read({ filter: { agentIds: ["nobody"] }, bookmarkMs: 30 });
    for (let n = 0; n < 5; n += 1) scene.source.create(`agent-${n}`);
    await scene.settle();
    await reader.until(({ revision }) => revision === scene.source.revision);
    expect(reader.changes).toEqual([]);
  });

  it("gets many changes in one message when several wait", async () => {
    await using scene = await startScene();
    await using reader = scene.read();
    await reader.until(({ snapshot }) => snapshot !== undefined);
    for (let n = 0; n < 50; n += 1) scene.source.create(`agent-${n}`);
    await scene.settle();
    await reader.until(({ changes }) => changes.length === 50);
    expect(reader.messages).toHaveLength(2);
  });

  it("that is too slow ends alone, with the revision to resume from", async () => {
    await using scene = await startScene({ queueLimit: 10 });
    const { source } = scene;
    await using quick = scene.read();
    const abort = new AbortController();
    const slow = scene.watches.watch(watchQuery({ afterRevision: 100n }), abort.signal)[Symbol.asyncIterator]();
    await slow.next();
    source.create("one");
    await scene.settle();
    expect((await slow.next()).value).toMatchObject({ revision: 101n });
    for (let n = 0; n < 11; n += 1) {
      source.create(`agent-${n}`);
      await scene.settle();
    }
    await expect(slow.next()).rejects.toMatchObject({ reason: "WATCHER_TOO_SLOW", metadata: { revision: "101" } });
    expect(scene.hub.size).toBe(1);
    await quick.until(({ revision }) => revision === source.revision);
    expect(quick.set.size).toBe(12);
  });

  it("ends promptly when its client ends the call, and leaves no state", async () => {
    await using scene = await startScene();
    const reader = scene.read();
    await reader.until(({ snapshot }) => snapshot !== undefined);
    expect(scene.hub.size).toBe(1);
    await reader[Symbol.asyncDispose]();
    expect(reader.error).toBeUndefined();
    expect(scene.hub.size).toBe(0);
    const aborted = scene.watches.watch(watchQuery(), AbortSignal.abort())[Symbol.asyncIterator]();
    expect(await aborted.next()).toEqual({ done: true, value: undefined });
    expect(scene.source.pages).toBe(1);
  });

  it("ends at its maximum age, with the revision to resume from, and not before its snapshot is complete", async () => {
    ownTime();
    await using scene = await startScene({ maxAgeMs: 80_000, pageSize: 2 });
    for (let n = 0; n < 7; n += 1) scene.source.create(`agent-${n}`);
    const goesOn = Promise.withResolvers<void>();
    await using slow = scene.read({ conflate: true, pace: () => goesOn.promise });
    await using idle = scene.read({ afterRevision: 107n });
    await vi.waitFor(() => expect(slow.messages).not.toEqual([]), PATIENCE);
    // Ages differ by up to a quarter.
    await vi.advanceTimersByTimeAsync(55_000);
    expect([idle.ended, slow.ended]).toEqual([false, false]);
    await vi.advanceTimersByTimeAsync(46_000);
    for (const reader of [idle, slow]) {
      await vi.waitFor(() => expect(reader.ended).toBe(true), PATIENCE);
      expect(reader.error).toMatchObject({ reason: "DRAINING", retryAfterMs: expect.any(Number) });
      expect(reader.messages.at(-1)).toMatchObject({ revision: 107n, bookmark: { snapshotComplete: false } });
      if (reader === idle) expect(slow.ended).toBe(false);
      goesOn.resolve();
    }
    expect(slow.snapshot).toHaveLength(7);
    expect(scene.hub.size).toBe(0);
  });

  it.each([
    false,
    true,
  ])("ends at its maximum age also when it is far behind, with some progress (conflating: %s)", async (conflate) => {
    await using scene = await startScene({ maxAgeMs: 60, pageSize: 2, ringCapacity: 4 });
    const { source } = scene;
    const agent = source.create("agent");
    for (let n = 0; n < 200; n += 1) source.change(agent, { status: n % 2 === 0 ? "busy" : "idle" });
    await scene.settle();
    source.delay = () => sleep(3);
    let revision = 100n;
    const heard: bigint[] = [];
    while (revision < source.revision) {
      await using reader = scene.read({ afterRevision: revision, conflate });
      expect(await reader.end()).toMatchObject({ reason: "DRAINING" });
      expect(reader.revision).toBeGreaterThan(revision);
      if (revision === 100n) expect(reader.revision).toBeLessThan(200n);
      heard.push(...reader.revisions);
      revision = reader.revision;
    }
    if (!conflate) expect(heard).toEqual(source.transitions.map((one) => one.revision));
    expect(heard.at(-1)).toBe(source.revision);
    expect(scene.hub.size).toBe(0);
  });

  it.each([false, true])("makes progress however short its maximum age is (conflating: %s)", async (conflate) => {
    await using scene = await startScene({ maxAgeMs: 0 });
    const agent = scene.source.create("agent");
    scene.source.change(agent, { status: "busy" });
    await scene.settle();
    await using reader = scene.read({ afterRevision: 100n, conflate });
    expect(await reader.end()).toMatchObject({ reason: "DRAINING" });
    expect(reader.revisions).toEqual([101n, 102n]);
    expect(reader.revision).toBe(102n);
    await using idle = scene.read({ afterRevision: 102n, conflate });
    expect(await idle.end()).toMatchObject({ reason: "DRAINING" });
    expect(idle.revision).toBe(102n);
  });

  it("at its maximum age waits for its snapshot without a busy loop", async () => {
    ownTime();
    await using scene = await startScene({ maxAgeMs: 10 });
    const { source } = scene;
    await using reader = scene.read();
    const answers = Promise.withResolvers<void>();
    source.delay = () => answers.promise;
    await vi.advanceTimersByTimeAsync(30);
    // It sets no timer after the other.
    const end = performance.now() + 200;
    let timers = 0;
    for (; performance.now() < end && vi.getTimerCount() > 0 && timers < 20; timers += 1) {
      await vi.advanceTimersToNextTimerAsync();
    }
    expect(timers).toBeLessThan(20);
    answers.resolve();
    expect(await reader.end()).toMatchObject({ reason: "DRAINING" });
    expect(reader.snapshot).toEqual([]);
  });

  it("ends when the replica drains, and no new one starts", async () => {
    await using scene = await startScene();
    const reader = scene.read();
    await reader.until(({ snapshot }) => snapshot !== undefined);
    scene.hub.drain();
    for (const ended of [reader, scene.read()]) {
      expect(await ended.end()).toMatchObject({ reason: "DRAINING" });
      expect(ended.error).toHaveProperty("retryAfterMs", expect.any(Number));
    }
    expect(scene.hub.size).toBe(0);
  });

  it("ends when the history that it received is lost", async () => {
    await using scene = await startScene();
    const { source } = scene;
    source.create("one");
    source.create("two");
    await using reader = scene.read();
    await reader.until(({ snapshot }) => snapshot !== undefined);
    source.transitions.length = 1;
    source.gaps.push({ from: 101n, to: 9_000n });
    source.revision = 9_000n;
    source.create("two, again");
    expect(await reader.end()).toMatchObject({ reason: "REVISION_COMPACTED" });
    await using again = scene.read({ afterRevision: 102n });
    expect(await again.end()).toMatchObject({ reason: "REVISION_COMPACTED" });
  });
});
