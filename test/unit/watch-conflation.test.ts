import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { type AgentFilter, agentOf, EVERY_AGENT, predicateOf } from "../../src/domain/filter.ts";
import type { WatchedChange, WatchMessage } from "../../src/domain/watch-message.ts";
import { NewestChanges } from "../../src/watch/newest-changes.ts";
import { FakeLog, randomOf, replay } from "../support/fake-log.ts";
import { seen, watchQuery } from "../support/watch-reader.ts";
import { changeSomething, startScene, turnsOf } from "../support/watch-scene.ts";

const FILTERS: readonly Partial<AgentFilter>[] = [
  {},
  { clawIdentifiers: ["claw-a"] },
  { statuses: ["busy", "idle"] },
  { agentIds: ["agent-1", "agent-2", "agent-3", "agent-4"], statuses: ["idle"] },
];

/** Takes all waiting changes, which arrived up to `position`. */
function takeAll(waiting: NewestChanges, position: bigint): readonly WatchedChange[] {
  const changes: WatchedChange[] = [];
  for (let told = waiting.take(2, position); told !== undefined; told = waiting.take(2, position)) {
    changes.push(...told.changes);
    expect(told.completeTo).toBe(waiting.size === 0 ? position : undefined);
  }
  return changes;
}

const told = (changes: readonly WatchedChange[]) =>
  changes.map(
    ({ type, transition, conflated }) => `${type} ${transition.agentId} @${transition.revision} +${conflated}`,
  );

describe("changes that wait for a conflating watcher", () => {
  const log = new FakeLog();
  const one = log.create("one");
  const two = log.create("two");
  log.change(one, { status: "busy" });
  log.change(two, { status: "busy" });
  log.change(one, { status: "idle" });
  const [createdOne, , busyOne, busyTwo, idleOne] = log.transitions;
  if (createdOne === undefined || busyOne === undefined || busyTwo === undefined || idleOne === undefined) {
    throw new Error("the log is too short");
  }
  const change = (type: WatchedChange["type"], transition: typeof busyOne): WatchedChange => ({
    type,
    transition,
    conflated: 0,
  });

  it.each([
    ["entered", "left", []],
    ["entered", "updated", ["entered one @105 +1"]],
    ["updated", "updated", ["updated one @105 +1"]],
    ["updated", "left", ["left one @105 +1"]],
    ["left", "entered", ["updated one @105 +1"]],
  ] as const)("merge: %s and %s", (older, newer, expected) => {
    const waiting = new NewestChanges(10);
    waiting.push(change(older, busyOne), 103n);
    waiting.push(change(newer, idleOne), 105n);
    // The last change is merged when more arrive.
    waiting.push(change("updated", busyTwo), 106n);
    expect(told(takeAll(waiting, 106n)).filter((text) => text.includes(" one "))).toEqual(expected);
  });

  it("keep the place of the first of them", () => {
    const waiting = new NewestChanges(10);
    waiting.push(change("updated", busyOne), 103n);
    waiting.push(change("updated", busyTwo), 104n);
    waiting.push(change("updated", idleOne), 105n);
    waiting.push(change("updated", busyTwo), 106n);
    expect(told(takeAll(waiting, 106n))).toEqual(["updated one @105 +1", "updated two @104 +0", "updated two @104 +0"]);
  });

  it("stay single when they arrived together and are taken before more arrives", () => {
    const waiting = new NewestChanges(10);
    waiting.push(change("updated", busyOne), 105n);
    waiting.push(change("updated", idleOne), 105n);
    expect(told(takeAll(waiting, 105n))).toEqual(["updated one @103 +0", "updated one @105 +0"]);
  });

  it("take no capacity for an agent that waits already, and none beyond the limit", () => {
    const waiting = new NewestChanges(1);
    expect(waiting.push(change("updated", busyOne), 103n)).toBe(true);
    for (let n = 0n; n < 5n; n += 1n) {
      expect(waiting.push(change("updated", idleOne), 105n + n)).toBe(true);
      expect(waiting.size).toBe(1);
    }
    expect(waiting.push(change("updated", busyTwo), 110n)).toBe(false);
  });

  it("never merge agents of different numbers: the old one leaves before the new one of its name enters", () => {
    const story = new FakeLog();
    const first = story.create("same");
    story.delete(first);
    story.create("same");
    const waiting = new NewestChanges(10);
    const [, deleted, created] = story.transitions;
    if (deleted === undefined || created === undefined) throw new Error("the log is too short");
    waiting.push(change("updated", { ...deleted, revision: 90n }), 90n);
    waiting.push(change("left", deleted), 102n);
    waiting.push(change("entered", created), 103n);
    expect(told(takeAll(waiting, 103n))).toEqual(["left same @102 +1", "entered same @103 +0"]);
  });
});

describe("a watch that conflates", () => {
  it.each(
    Array.from({ length: 12 }, (_, seed) => seed),
  )("has the set of the log at every revision it receives, however slowly it reads (seed %i)", async (seed) => {
    const random = randomOf(seed);
    // Small queues: most readers fall behind the ring, some of them within their snapshot.
    await using scene = await startScene({ queueLimit: 4 + (seed % 5), pageSize: 2, ringCapacity: 10 });
    const { source } = scene;
    const turns = turnsOf(random);
    source.delay = () => turns(4);
    for (let n = 0; n < 30; n += 1) changeSomething(source, random);
    const filters = FILTERS.map((filter) => ({ ...EVERY_AGENT, ...filter }));
    await using stack = new AsyncDisposableStack();
    const readers = filters.map((filter) =>
      stack.use(scene.read({ filter, conflate: true, bookmarkMs: 20, pace: () => sleep(random() * 15) })),
    );
    for (let n = 0; n < 150; n += 1) {
      changeSomething(source, random);
      if (random() < 0.5) scene.feed.wake();
      await turns(4);
    }
    await scene.settle();
    for (const [place, reader] of readers.entries()) {
      await reader.until(({ revision }) => revision === source.revision);
      const filter = filters[place] ?? EVERY_AGENT;
      for (const [revision, set] of reader.states) {
        expect(set).toEqual(replay(source.transitions, revision, filter).map(seen).sort());
      }
      expect(reader.error).toBeUndefined();
    }
  });

  it("receives every step when it keeps up", async () => {
    await using scene = await startScene();
    const { source } = scene;
    const agent = source.create("agent");
    await using reader = scene.read({ conflate: true });
    await reader.until(({ snapshot }) => snapshot !== undefined);
    for (let n = 0; n < 30; n += 1) source.change(agent, { status: n % 2 === 0 ? "busy" : "idle" });
    await scene.settle();
    await reader.until(({ revision }) => revision === source.revision);
    expect(reader.revisions).toHaveLength(30);
    expect(reader.changes.every(({ conflated }) => conflated === 0)).toBe(true);
  });

  it("may pause for as long as it likes: it uses its limit and gets the rest when it continues", async () => {
    await using scene = await startScene({ queueLimit: 30, pageSize: 5, ringCapacity: 50 });
    const { source } = scene;
    const ids = Array.from({ length: 40 }, (_, n) => source.create(`agent-${n}`));
    await scene.settle();
    const after = source.revision;
    const abort = new AbortController();
    const query = watchQuery({ afterRevision: after, conflate: true });
    const stream = scene.watches.watch(query, abort.signal)[Symbol.asyncIterator]();
    await stream.next();
    for (let round = 0; round < 10; round += 1) {
      // A few agents ten times, which merge; then all of them, which exceed the capacity.
      for (const id of round < 9 ? ids.slice(0, 12) : ids)
        source.change(id, { status: round % 2 === 0 ? "busy" : "offline" });
      await scene.settle();
    }
    const set = new Map<string, string>();
    const messages: WatchMessage[] = [];
    let changes = 0;
    for (let revision = after; revision < source.revision; ) {
      const { value } = await stream.next();
      if (value === undefined) throw new Error("the watch ended");
      messages.push(value);
      for (const change of value.changes) set.set(change.transition.agentId, seen(agentOf(change.transition)));
      changes += value.changes.length;
      revision = value.revision;
    }
    abort.abort();
    await stream.next();
    expect([...set.values()].sort()).toEqual([...source.agents.values()].map(seen).sort());
    expect(changes).toBeLessThan(80);
    const sum = messages
      .flatMap((message) => message.changes)
      .reduce((total, { conflated }) => total + conflated + 1, 0);
    expect(sum).toBe(9 * 12 + 40);
    expect(scene.hub.size).toBe(0);
  });

  it("may be cut off within a batch: its revision is the last one at which it was complete", async () => {
    const random = randomOf(77);
    await using scene = await startScene({ queueLimit: 1_500, pageSize: 500, ringCapacity: 5_000 });
    const { source } = scene;
    const ids = Array.from({ length: 1_200 }, (_, n) => source.create(`agent-${n}`));
    await scene.settle();
    const begin = source.revision;
    const abort = new AbortController();
    const query = watchQuery({ afterRevision: begin, conflate: true });
    const stream = scene.watches.watch(query, abort.signal)[Symbol.asyncIterator]();
    await stream.next();
    for (let n = 0; n < 3_000; n += 1) {
      const id = ids[Math.floor(random() * ids.length)] ?? 0n;
      const status = source.agents.get(id)?.status === "busy" ? "idle" : "busy";
      source.change(id, { status });
      if (n % 100 === 0) await scene.settle();
    }
    await scene.settle();
    const first = await stream.next();
    expect(first.value?.changes).toHaveLength(1_000);
    expect(first.value).toMatchObject({ revision: begin, bookmark: undefined });
    const second = await stream.next();
    expect(second.value?.revision).toBe(source.revision);
    const passes = predicateOf(EVERY_AGENT);
    expect([...source.agents.values()].filter(passes)).toHaveLength(1_200);
    abort.abort();
    await stream.next();
  });
});
