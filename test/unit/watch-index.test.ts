import { describe, expect, it, onTestFinished, vi } from "vitest";
import { type AgentFilter, changeType, EVERY_AGENT, predicateOf } from "../../src/domain/filter.ts";
import { Hub } from "../../src/watch/hub.ts";
import { Watcher } from "../../src/watch/watcher.ts";
import { WatcherIndex } from "../../src/watch/watcher-index.ts";
import { FakeLog, randomOf } from "../support/fake-log.ts";
import { watchQuery } from "../support/watch-reader.ts";
import { changeSomething } from "../support/watch-scene.ts";

function watcherOf(filter: Partial<AgentFilter>): Watcher {
  return new Watcher(watchQuery({ filter, afterRevision: 0n }), new AbortController().signal);
}

describe("the index of watchers", () => {
  it("finds every watcher whose filter a transition concerns, once, and none after it left", () => {
    const random = randomOf(3);
    const some = <Item>(items: readonly Item[]): Item[] =>
      random() < 0.5 ? [] : items.filter(() => random() < 0.4).slice(0, 3);
    const names = Array.from({ length: 20 }, (_, n) => `agent-${n}`);
    const users = Array.from({ length: 30 }, (_, n) => BigInt(1_000 + n));
    const index = new WatcherIndex();
    const watchers = Array.from({ length: 300 }, () =>
      watcherOf({
        agentIds: some(names),
        userIds: some(users),
        clawIdentifiers: some(["claw-a", "claw-b"]),
        statuses: some(["idle", "busy", "offline"] as const),
      }),
    );
    for (const watcher of watchers) index.add(watcher);
    const log = new FakeLog();
    for (let n = 0; n < 400; n += 1) changeSomething(log, random);
    for (const transition of log.transitions) {
      const told: Watcher[] = [];
      index.forEach(transition, (watcher) => told.push(watcher));
      expect(new Set(told).size).toBe(told.length);
      for (const watcher of watchers) {
        const news = changeType(transition, predicateOf({ ...EVERY_AGENT, ...watcher.query.filter })) !== undefined;
        if (news) expect(told).toContain(watcher);
      }
    }
    for (const watcher of watchers) index.delete(watcher);
    for (const transition of log.transitions) index.forEach(transition, () => expect.unreachable());
  });

  it("offers a transition to its receivers alone: 10 000 watchers of one agent each", () => {
    const hub = new Hub(100);
    hub.onRestart(100n);
    const log = new FakeLog();
    const ids = Array.from({ length: 10_000 }, (_, n) => log.create(`agent-${n}`));
    for (let n = 0; n < ids.length; n += 1) {
      const watcher = watcherOf({ agentIds: [`agent-${n}`] });
      hub.add(watcher);
      hub.follow(watcher);
    }
    log.transitions.length = 0;
    for (let n = 0; n < 2_000; n += 1) log.change(ids[n] ?? 0n, { status: n % 2 === 0 ? "busy" : "on_call" });
    const offered = vi.spyOn(Watcher.prototype, "offer");
    onTestFinished(() => offered.mockRestore());
    for (const transition of log.transitions) hub.onTransitions([transition], transition.revision);
    expect(offered).toHaveBeenCalledTimes(2_000);
  });
});
