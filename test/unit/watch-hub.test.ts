import { describe, expect, it, vi } from "vitest";
import { Hub } from "../../src/watch/hub.ts";
import { Watcher } from "../../src/watch/watcher.ts";
import { FakeLog } from "../support/fake-log.ts";
import { watchQuery } from "../support/watch-reader.ts";

/** A hub whose feed has read so many transitions of one agent each. */
function hubWith(transitions: number) {
  const log = new FakeLog();
  const hub = new Hub(100);
  const start = log.revision;
  hub.onRestart(start);
  for (let n = 0; n < transitions; n += 1) log.create(`agent-${n}`);
  hub.onTransitions(log.transitions, log.revision);
  return { hub, start, revisions: log.transitions.map(({ revision }) => revision), position: log.revision };
}

function watcher(): Watcher {
  return new Watcher(watchQuery({ afterRevision: 0n }), new AbortController().signal);
}

describe("the memory of the hub", () => {
  it("returns the transitions after a revision, up to a limit", () => {
    const { hub, start, revisions, position } = hubWith(5);
    expect(hub.recall(start, 100)?.map(({ revision }) => revision)).toEqual(revisions);
    expect(hub.recall(start, 2)?.map(({ revision }) => revision)).toEqual(revisions.slice(0, 2));
    expect(hub.recall(position, 100)).toEqual([]);
  });

  it("returns nothing after a revision that the feed has not reached", () => {
    const { hub, position } = hubWith(5);
    expect(hub.recall(position + 1n, 100)).toBeUndefined();
  });

  it("returns nothing after a compacted revision, although the ring still has it", () => {
    const { hub, start, revisions } = hubWith(5);
    const [, second = 0n, third = 0n] = revisions;
    hub.onCompacted(second);
    expect(hub.recall(start, 100)).toBeUndefined();
    expect(hub.recall(second - 1n, 100)).toBeUndefined();
    expect(hub.recall(second, 1)).toMatchObject([{ revision: third }]);
  });
});

describe("a revision within a gap that the feed has passed", () => {
  it("is rejected as compacted, until the log is compacted beyond the gap", () => {
    const { hub, position } = hubWith(1);
    const gap = { from: position, to: position + 10n };
    hub.onGap(gap);
    hub.onTransitions([], gap.to);
    expect(hub.hasReached(gap.from)).toBe(true);
    expect(() => hub.hasReached(gap.from + 1n)).toThrow(expect.objectContaining({ reason: "REVISION_COMPACTED" }));
    expect(() => hub.hasReached(gap.to - 1n)).toThrow(expect.objectContaining({ reason: "REVISION_COMPACTED" }));
    expect(hub.hasReached(gap.to)).toBe(true);
    expect(hub.hasReached(gap.to + 1n)).toBe(false);
    hub.onCompacted(gap.to - 1n);
    expect(() => hub.hasReached(gap.to - 1n)).toThrow();
    hub.onCompacted(gap.to);
    expect(hub.hasReached(gap.to - 1n)).toBe(true);
  });
});

describe("the hub", () => {
  it("offers a transition to no watcher that has left", () => {
    const { hub } = hubWith(0);
    const left = watcher();
    hub.add(left);
    hub.follow(left);
    hub.remove(left);
    hub.follow(left);
    const log = new FakeLog();
    log.create("agent");
    hub.onTransitions(log.transitions, log.revision);
    expect(left.hasChanges).toBe(false);
    expect(hub.size).toBe(0);
  });

  it("wakes a watcher at its awaited position, and no watcher that has left or waits for none", () => {
    const { hub, position } = hubWith(0);
    const woken: string[] = [];
    const awaiting = (name: string, at: bigint): Watcher => {
      const one = watcher();
      vi.spyOn(one, "wake").mockImplementation(() => woken.push(name));
      hub.add(one);
      hub.awaitPosition(one, at);
      return one;
    };
    awaiting("here", position + 5n);
    awaiting("further", position + 6n);
    hub.remove(awaiting("left", position + 5n));
    hub.awaitPosition(awaiting("no longer", position + 5n), undefined);
    hub.onTransitions([], position + 4n);
    expect(woken).toEqual([]);
    hub.onTransitions([], position + 5n);
    expect(woken).toEqual(["here"]);
  });

  it("accepts no watcher before the feed has read its position, nor while the replica drains", () => {
    const refusal = (reason: string) => expect.objectContaining({ reason });
    expect(() => new Hub(100).add(watcher())).toThrow(refusal("DATABASE_UNAVAILABLE"));
    const { hub } = hubWith(0);
    const open = watcher();
    hub.add(open);
    hub.drain();
    expect(() => open.isOpen()).toThrow(refusal("DRAINING"));
    expect(() => hub.add(watcher())).toThrow(refusal("DRAINING"));
  });

  it("ends all watches when the history restarts, and the first reason counts", () => {
    const { hub, position } = hubWith(0);
    const open = watcher();
    hub.add(open);
    hub.onRestart(position + 100n);
    hub.drain();
    expect(() => open.isOpen()).toThrow(expect.objectContaining({ reason: "REVISION_COMPACTED" }));
    expect(hub.position).toBe(position + 100n);
  });
});
