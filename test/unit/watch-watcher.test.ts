import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { draining } from "../../src/watch/watch-refusals.ts";
import { MESSAGE_CHANGES, Watcher } from "../../src/watch/watcher.ts";
import { FakeLog } from "../support/fake-log.ts";
import { watchQuery } from "../support/watch-reader.ts";

const BOOKMARK_MS = 1_000;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** A conflating watcher, and an offered batch that takes two messages. */
function withTwoMessages(maxAgeMs: number) {
  const log = new FakeLog();
  const query = watchQuery({ conflate: true, afterRevision: 1n, bookmarkMs: BOOKMARK_MS });
  const watcher = new Watcher(query, new AbortController().signal, 10_000, maxAgeMs);
  const start = log.revision;
  watcher.scheduleFirstMessage(0);
  expect(watcher.next(start)).toMatchObject({ revision: start, bookmark: { snapshotComplete: false } });
  for (let n = 0; n < MESSAGE_CHANGES + 1; n += 1) log.create(`agent-${n}`);
  for (const transition of log.transitions) watcher.offer(transition, log.revision);
  return { watcher, start, position: log.revision };
}

describe("within a batch of merged changes", () => {
  it("a watcher gets no new revision to resume from, and no bookmark although one is due", () => {
    const { watcher, start, position } = withTwoMessages(3_600_000);
    vi.advanceTimersByTime(2 * BOOKMARK_MS);
    const first = watcher.next(position);
    expect(first).toMatchObject({ revision: start, bookmark: undefined });
    expect(first?.changes).toHaveLength(MESSAGE_CHANGES);
    expect(watcher.dueBookmark()).toBeUndefined();
    const last = watcher.next(position);
    expect(last).toMatchObject({ revision: position, bookmark: { snapshotComplete: false } });
    expect(last?.changes).toHaveLength(1);
  });

  it("a watch at its maximum age does not end; it ends with the last change of the batch", () => {
    const { watcher, position } = withTwoMessages(0);
    expect(watcher.isOld).toBe(true);
    expect(watcher.mayEnd).toBe(true);
    watcher.next(position);
    expect(watcher.mayEnd).toBe(false);
    watcher.next(position);
    expect(watcher.mayEnd).toBe(true);
  });
});

describe("the position of a watcher", () => {
  it("never goes back", () => {
    const watcher = new Watcher(watchQuery(), new AbortController().signal);
    watcher.advance(10n);
    watcher.advance(5n);
    expect(watcher.position).toBe(10n);
    expect(watcher.message({}).revision).toBe(10n);
  });
});

describe("a watcher that is behind", () => {
  it("keeps its position until it has read the log again", () => {
    const log = new FakeLog();
    const watcher = new Watcher(
      watchQuery({ conflate: true, bookmarkMs: BOOKMARK_MS }),
      new AbortController().signal,
      1,
    );
    watcher.advance(log.revision);
    const start = log.revision;
    for (const agentId of ["a", "b"]) log.create(agentId);
    const offered = log.transitions.map((transition) => watcher.offer(transition, log.revision));
    expect(offered).toEqual([true, false]);
    expect(watcher.isBehind).toBe(true);
    vi.advanceTimersByTime(2 * BOOKMARK_MS);
    expect(watcher.next(log.revision)).toMatchObject({ revision: start, changes: [] });
    expect(watcher.position).toBe(start);
  });
});

describe("a watcher that has ended", () => {
  it("sends nothing: it has dropped changes, so a client must not resume from its position", () => {
    const log = new FakeLog();
    const watcher = new Watcher(watchQuery({ bookmarkMs: BOOKMARK_MS }), new AbortController().signal);
    log.create("agent-1");
    for (const transition of log.transitions) watcher.offer(transition, log.revision);
    const refusal = draining();
    watcher.end(refusal);
    vi.advanceTimersByTime(2 * BOOKMARK_MS);
    expect(() => watcher.next(log.revision)).toThrow(refusal);
    expect(() => watcher.message({})).toThrow(refusal);
  });
});
