import { setImmediate as turn } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Transition } from "../../src/domain/agent.ts";
import { ChangeFeed, type FeedLog } from "../../src/watch/change-feed.ts";
import { FakeLog } from "../support/fake-log.ts";
import { PATIENCE } from "../support/until.ts";

const quiet: FeedLog = { info: () => undefined, warn: () => undefined };

async function startFeed(source: FakeLog, log = quiet) {
  const feed = new ChangeFeed({ source, log });
  const events: string[] = [];
  feed.subscribe({
    onTransitions: (transitions, position) => {
      events.push(`${transitions.map(({ revision }) => revision).join(",")} to ${position}`);
    },
    onRestart: (position) => events.push(`restart at ${position}`),
  });
  await feed.start();
  return { feed, events, [Symbol.asyncDispose]: () => feed.close() };
}

describe("the change feed", () => {
  it("starts at the end of the log, and finds new transitions by polling alone", async () => {
    const source = new FakeLog();
    source.create("before");
    await using scene = await startFeed(source);
    expect(scene.feed.position).toBe(101n);
    source.create("one");
    source.create("two");
    await vi.waitFor(() => expect(scene.events).toEqual(["restart at 101", "102,103 to 103"]), PATIENCE);
  });

  describe("on the clock of the test", () => {
    beforeEach(() => {
      vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
    });
    afterEach(() => {
      vi.useRealTimers();
    });

    /** Advances by so many milliseconds, one by one, with all events of each. */
    async function pass(ms: number): Promise<void> {
      for (let passed = 0; passed < ms; passed += 1) {
        await turn();
        await vi.advanceTimersByTimeAsync(1);
      }
    }

    it("polls at once when it is woken, also by a commit during a poll", async () => {
      const source = new FakeLog();
      await using scene = await startFeed(source);
      // A query and its response take a turn each.
      source.delay = () => turn();
      await pass(10);
      for (let n = 1; n <= 20; n += 1) {
        source.create(`agent-${n}`);
        scene.feed.wake();
        // The next commit comes while the feed reads, or just before or after that: its wake must not be lost.
        for (let turns = 0; turns < n % 5; turns += 1) await turn();
        source.create(`another-${n}`);
        scene.feed.wake();
        // Much less than the shortest pause between two polls, which is 100 ms.
        await pass(20);
        expect(scene.feed.position).toBe(100n + 2n * BigInt(n));
      }
    });

    it("limits its polling rate, however often it is woken", async () => {
      const source = new FakeLog();
      await using scene = await startFeed(source);
      const before = source.reads;
      for (let ms = 0; ms < 100; ms += 1) {
        for (let wakes = 0; wakes < 5; wakes += 1) {
          scene.feed.wake();
          await turn();
        }
        await vi.advanceTimersByTimeAsync(1);
      }
      // One in five milliseconds.
      expect(source.reads - before).toBeGreaterThan(10);
      expect(source.reads - before).toBeLessThanOrEqual(21);
    });
  });

  it("reads a backlog page by page without a pause", async () => {
    const source = new FakeLog();
    await using scene = await startFeed(source);
    for (let n = 0; n < 3_500; n += 1) source.create(`agent-${n}`);
    scene.feed.wake();
    await vi.waitFor(() => expect(scene.feed.position).toBe(3_600n), PATIENCE);
    expect(scene.events.slice(1).map((event) => event.replace(/.* to/, "to"))).toEqual([
      "to 1100",
      "to 2100",
      "to 3100",
      "to 3600",
    ]);
  });

  it("continues from its position after the database was away, and reports that once", async () => {
    const source = new FakeLog();
    const events: string[] = [];
    const say = ({ event }: { readonly event: string }) => void events.push(event);
    await using scene = await startFeed(source, { info: say, warn: say });
    source.failure = new Error("Connection terminated");
    source.create("one");
    const before = source.reads;
    await vi.waitFor(() => expect(source.reads).toBeGreaterThan(before + 2), PATIENCE);
    expect(scene.feed.position).toBe(100n);
    source.failure = undefined;
    await vi.waitFor(() => expect(scene.events).toEqual(["restart at 100", "101 to 101"]), PATIENCE);
    expect(events).toEqual(["feed.unavailable", "feed.resumed"]);
  });

  it("starts when the database comes", async () => {
    const source = new FakeLog();
    source.failure = new Error("Connection terminated");
    const feed = new ChangeFeed({ source, log: quiet });
    const started = feed.start();
    await vi.waitFor(() => expect(feed.position).toBeUndefined(), PATIENCE);
    source.failure = undefined;
    await started;
    expect(feed.position).toBe(100n);
    await feed.close();
  });

  it("passes a revision gap that it is not in", async () => {
    const source = new FakeLog();
    await using scene = await startFeed(source);
    source.gaps.push({ from: 100n, to: 5_000n });
    source.revision = 5_000n;
    source.create("one");
    await vi.waitFor(() => expect(scene.events).toEqual(["restart at 100", "5001 to 5001"]), PATIENCE);
  });

  it.each<[string, (source: FakeLog) => void, string]>([
    [
      "is behind it: another history went on from an earlier place",
      (source) => {
        source.gaps.push({ from: 101n, to: 5_000n });
        source.revision = 5_000n;
      },
      "restart at 5000",
    ],
    [
      "went back: the database was restored",
      (source) => {
        source.revision = 101n;
      },
      "restart at 103",
    ],
    [
      "was compacted before it was read",
      (source) => {
        source.revision = 900n;
        source.oldest = 800n;
      },
      "restart at 900",
    ],
  ])("restarts when the log %s", async (_, happen, event) => {
    const source = new FakeLog();
    source.create("one");
    source.create("two");
    await using scene = await startFeed(source);
    source.transitions.length = 0;
    happen(source);
    await vi.waitFor(() => expect(scene.events).toEqual(["restart at 102", event]), PATIENCE);
    source.create("three");
    await vi.waitFor(() => expect(scene.feed.position).toBe(source.revision), PATIENCE);
    expect(scene.events.at(-1)).toBe(`${source.revision} to ${source.revision}`);
  });

  it("ignores errors of a subscriber, and calls none after it has left or after the end", async () => {
    const source = new FakeLog();
    await using scene = await startFeed(source);
    scene.feed.subscribe({
      onTransitions: () => {
        throw new Error("a defect");
      },
    });
    const heard: Transition[] = [];
    const left: Transition[] = [];
    scene.feed.onTransitions((transitions) => heard.push(...transitions));
    scene.feed.onTransitions((transitions) => left.push(...transitions))();
    source.create("one");
    await vi.waitFor(() => expect(heard).toHaveLength(1), PATIENCE);
    await scene.feed.close();
    source.create("two");
    scene.feed.wake();
    await turn();
    expect(heard).toHaveLength(1);
    expect(left).toHaveLength(0);
  });
});
