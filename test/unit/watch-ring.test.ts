import { describe, expect, it } from "vitest";
import { Ring } from "../../src/watch/ring.ts";
import { FakeLog } from "../support/fake-log.ts";

function revisions(ring: Ring, after: bigint, limit = 100): readonly bigint[] | undefined {
  return ring.from(after, limit)?.map(({ revision }) => revision);
}

/** A ring that begins after revision 100, with `count` transitions pushed. */
function ringOf(capacity: number, count: number): Ring {
  const log = new FakeLog();
  const ring = new Ring(capacity);
  ring.reset(100n);
  for (let n = 0; n < count; n += 1) log.create(`agent-${n}`);
  for (const transition of log.transitions) ring.push(transition);
  return ring;
}

describe("the ring", () => {
  it("returns the transitions strictly after a revision", () => {
    const ring = ringOf(10, 4);
    expect(revisions(ring, 100n)).toEqual([101n, 102n, 103n, 104n]);
    expect(revisions(ring, 102n)).toEqual([103n, 104n]);
    expect(revisions(ring, 104n)).toEqual([]);
    expect(revisions(ring, 100n, 2)).toEqual([101n, 102n]);
  });

  it("returns nothing from a revision that it may have dropped", () => {
    const ring = ringOf(4, 11);
    expect(ring.start).toBe(107n);
    expect(revisions(ring, 106n)).toBeUndefined();
    expect(revisions(ring, 107n)).toEqual([108n, 109n, 110n, 111n]);
    expect(revisions(ring, 109n)).toEqual([110n, 111n]);
  });

  it("has nothing from before its start, and nothing after a reset", () => {
    const ring = ringOf(4, 3);
    expect(revisions(ring, 99n)).toBeUndefined();
    ring.reset(500n);
    expect(revisions(ring, 103n)).toBeUndefined();
    expect(revisions(ring, 500n)).toEqual([]);
  });

  it("finds its position between revisions with gaps", () => {
    const ring = new Ring(10);
    const log = new FakeLog();
    log.create("one");
    log.revision = 1_000n;
    log.create("two");
    for (const transition of log.transitions) ring.push(transition);
    expect(revisions(ring, 500n)).toEqual([1_001n]);
  });
});
