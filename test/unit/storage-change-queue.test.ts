import { describe, expect, it } from "vitest";
import { ChangeQueue } from "../../src/storage/change-queue.ts";

interface Item {
  readonly name: string;
  readonly change: { readonly agentId: string; readonly report?: boolean };
}

const other = (agentId: string, name: string): Item => ({ name, change: { agentId } });
const report = (agentId: string, name: string): Item => ({ name, change: { agentId, report: true } });

function queueOf(...items: Item[]) {
  const dropped = new Set<string>();
  const queue = new ChangeQueue<Item>(({ name }) => dropped.has(name));
  for (const item of items) queue.push(item);
  const group = (most = 1_000) => queue.takeGroup(most).map(({ name }) => name);
  const groups = (): string[][] => (queue.size === 0 ? [] : [group(), ...groups()]);
  return { queue, dropped, group, groups };
}

describe("the queue of changes", () => {
  it("takes the first change of each agent, and those of one agent in their order", () => {
    const { groups } = queueOf(
      other("a", "a1"),
      other("a", "a2"),
      other("b", "b1"),
      other("a", "a3"),
      other("b", "b2"),
    );
    expect(groups()).toEqual([["a1", "b1"], ["a2", "b2"], ["a3"]]);
  });

  it("puts an agent with many changes behind the others after each of its turns", () => {
    const { group } = queueOf(...["1", "2", "3"].map((n) => other("a", `a${n}`)), other("b", "b1"), other("c", "c1"));
    expect([group(1), group(1), group(1), group(1)]).toEqual([["a1"], ["b1"], ["c1"], ["a2"]]);
  });

  it("lets a report wait for at most one other change of its agent", () => {
    const { queue, group } = queueOf(...["1", "2", "3", "4"].map((n) => other("a", `a${n}`)));
    expect(group()).toEqual(["a1"]);
    queue.push(report("a", "r1"));
    expect(group()).toEqual(["r1"]);
    queue.push(report("a", "r2"));
    expect([group(), group(), group()]).toEqual([["a2"], ["r2"], ["a3"]]);
  });

  it("lets other changes of an agent wait for at most one of its reports", () => {
    const { groups } = queueOf(
      ...["1", "2", "3"].map((n) => report("a", `r${n}`)),
      ...["1", "2", "3"].map((n) => other("a", `a${n}`)),
    );
    expect(groups().flat()).toEqual(["r1", "a1", "r2", "a2", "r3", "a3"]);
  });

  it("keeps half of each group for reports and half for other changes, while both wait", () => {
    const { queue, group } = queueOf(...Array.from({ length: 10 }, (_, n) => other(`o${n}`, `o${n}`)));
    for (let n = 0; n < 10; n += 1) queue.push(report(`r${n}`, `r${n}`));
    const first = group(4);
    expect(first.filter((name) => name.startsWith("r"))).toHaveLength(2);
    queue.takeGroup(100);
    expect(queue.size).toBe(0);
  });

  it("fills a group with either kind when the other one is missing", () => {
    const reports = queueOf(...Array.from({ length: 5 }, (_, n) => report(`r${n}`, `r${n}`)), other("o", "o"));
    expect(reports.group(6)).toHaveLength(6);
    const others = queueOf(...Array.from({ length: 5 }, (_, n) => other(`o${n}`, `o${n}`)), report("r", "r"));
    expect(others.group(6)).toHaveLength(6);
  });

  it("takes returned changes before later ones, both agents and changes", () => {
    const { queue, group } = queueOf(other("a", "a1"), other("b", "b1"), other("c", "c1"));
    const taken = queue.takeGroup(2);
    queue.push(other("a", "a2"));
    queue.putBack(taken);
    expect([group(2), group(2)]).toEqual([
      ["a1", "b1"],
      ["c1", "a2"],
    ]);
  });

  it("gives a returned report its turn before the other changes of its agent", () => {
    const { queue, group } = queueOf(report("a", "r1"), other("a", "a1"));
    queue.putBack(queue.takeGroup(1_000));
    expect([group(), group()]).toEqual([["r1"], ["a1"]]);
  });

  it("drops cancelled changes without a turn of their own", () => {
    const { queue, dropped, group } = queueOf(other("a", "a1"), other("a", "a2"), other("a", "a3"), other("b", "b1"));
    dropped.add("a1").add("a2").add("b1");
    expect(group()).toEqual(["a3"]);
    expect(queue.size).toBe(0);
    expect(group()).toEqual([]);
  });

  it("is full by the number of an agent's changes, without its reports and cancelled ones", () => {
    const { queue, dropped } = queueOf(other("a", "a1"), other("a", "a2"), report("a", "r1"), other("b", "b1"));
    expect(["a", "b", "c"].map((agentId) => queue.isFull(2, { agentId }))).toEqual([true, false, false]);
    expect(queue.isFull(2, { agentId: "a", report: true })).toBe(false);
    dropped.add("a1");
    expect(queue.isFull(2, { agentId: "a" })).toBe(false);
    expect(queue.size).toBe(3);
  });

  it("returns every change once, whichever are put back meanwhile", () => {
    let seed = 1;
    const random = (below: number): number => {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
      return seed % below;
    };
    const { queue } = queueOf();
    const done: string[] = [];
    let pushed = 0;
    for (let round = 0; round < 500 || queue.size > 0; round += 1) {
      for (let n = round < 500 ? random(8) : 0; n > 0; n -= 1) {
        pushed += 1;
        queue.push((random(2) === 0 ? other : report)(`agent ${random(5)}`, `change ${pushed}`));
      }
      const group = queue.takeGroup(4);
      expect(new Set(group.map(({ change }) => change.agentId)).size).toBe(group.length);
      const again = group.filter(() => random(4) === 0);
      queue.putBack(again);
      done.push(...group.filter((item) => !again.includes(item)).map(({ name }) => name));
    }
    expect(new Set(done).size).toBe(pushed);
    expect(done).toHaveLength(pushed);
  });
});
