import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it, vi } from "vitest";
import { SharedPages } from "../../src/watch/shared-pages.ts";
import { FakeLog } from "../support/fake-log.ts";
import { startScene } from "../support/watch-scene.ts";

function logOf(transitions: number): FakeLog {
  const log = new FakeLog();
  const agent = log.create("agent");
  for (let n = 1; n < transitions; n += 1) log.change(agent, { status: n % 2 === 0 ? "busy" : "idle" });
  return log;
}

describe("pages of the log", () => {
  it("are read once for all readers of the same position, sequential or concurrent", async () => {
    const log = logOf(10);
    const pages = new SharedPages(log);
    const [one, other] = await Promise.all([pages.read(100n, 4), pages.read(100n, 4)]);
    expect(one).toBe(other);
    expect(await pages.read(100n, 4)).toBe(one);
    expect(log.reads).toBe(1);
    expect((await pages.read(100n, 5)).transitions).toHaveLength(5);
    expect((await pages.read(104n, 4)).transitions.map(({ revision }) => revision)).toEqual([105n, 106n, 107n, 108n]);
    expect(log.reads).toBe(3);
  });

  it("are read by each reader at the end of the log, because its extent holds only for that moment", async () => {
    const log = logOf(3);
    const pages = new SharedPages(log);
    let wait: Promise<void> = sleep(20);
    log.delay = () => wait;
    const early = pages.read(103n, 4);
    wait = Promise.resolve();
    log.create("another");
    const [first, second] = await Promise.all([early, pages.read(103n, 4)]);
    log.create("a third");
    expect([first, second, await pages.read(103n, 4)].map(({ newest }) => newest)).toEqual([104n, 104n, 105n]);
    expect(log.reads).toBe(3);
  });

  it("are not cached after a failed read, nor for long, nor in any number", async () => {
    const log = logOf(100);
    const pages = new SharedPages(log);
    log.failure = new Error("away");
    await expect(pages.read(100n, 2)).rejects.toThrow("away");
    log.failure = undefined;
    await pages.read(100n, 2);
    expect(log.reads).toBe(2);
    for (let after = 101n; after < 110n; after += 1n) await pages.read(after, 2);
    await pages.read(109n, 2);
    expect(log.reads).toBe(11);
    await pages.read(100n, 2);
    expect(log.reads).toBe(12);
    const later = performance.now() + 3_000;
    const now = vi.spyOn(performance, "now").mockReturnValue(later);
    await pages.read(100n, 2);
    now.mockRestore();
    expect(log.reads).toBe(13);
  });

  it("cost many returning watchers as much as one of them", async () => {
    await using scene = await startScene({ ringCapacity: 4, pageSize: 10, queueLimit: 1_000 });
    const agent = scene.source.create("agent");
    for (let n = 0; n < 200; n += 1) scene.source.change(agent, { status: n % 2 === 0 ? "busy" : "idle" });
    await scene.settle();
    const before = scene.source.reads;
    await using stack = new AsyncDisposableStack();
    const readers = Array.from({ length: 20 }, (_, n) =>
      stack.use(scene.read({ afterRevision: 100n, conflate: n > 9 })),
    );
    for (const reader of readers) await reader.until(({ revision }) => revision === scene.source.revision);
    for (const reader of readers.slice(0, 10)) expect(reader.revisions).toHaveLength(201);
    // Twenty pages; without sharing, each watcher would read all of them.
    expect(scene.source.reads - before).toBeLessThan(100);
  });
});
