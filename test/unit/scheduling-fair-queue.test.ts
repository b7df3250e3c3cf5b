import { expect, test } from "vitest";
import { FairQueue } from "../../common/scheduling/fair-queue.ts";

function taken(queue: FairQueue<string>, count: number, costOf: (item: string) => number = () => 1): string[] {
  return Array.from({ length: count }, () => {
    const next = queue.shift();
    next?.charge(costOf(next.item));
    return next?.item ?? "nothing";
  });
}

test("takes one item of each connection in turn, in each connection's order", () => {
  const queue = new FairQueue<string>(1);
  for (const item of ["a1", "a2", "a3"]) queue.push("network", "a", item);
  queue.push("network", "b", "b1");
  expect(taken(queue, 5)).toEqual(["a1", "b1", "a2", "a3", "nothing"]);
});

test("gives a network with many connections no more than one with a single connection", () => {
  const queue = new FairQueue<string>(1);
  for (let n = 0; n < 100; n += 1) queue.push("many", n, "many");
  for (let n = 0; n < 3; n += 1) queue.push("few", "only", `few ${n}`);
  expect(taken(queue, 6)).toEqual(["many", "few 0", "many", "few 1", "many", "few 2"]);
});

test("makes a queue with costly items wait until the others have used as much", () => {
  const queue = new FairQueue<string>(10);
  for (let n = 0; n < 3; n += 1) queue.push("network", "dear", "dear");
  for (let n = 0; n < 8; n += 1) queue.push("network", "cheap", "cheap");
  const order = taken(queue, 9, (item) => (item === "dear" ? 40 : 10));
  expect(order.filter((item) => item === "dear")).toHaveLength(2);
  expect(order.slice(0, 6)).toEqual(["dear", "cheap", "cheap", "cheap", "cheap", "dear"]);
});

test("drops empty queues, and counts waiting items", () => {
  const queue = new FairQueue<string>();
  for (let n = 0; n < 1_000; n += 1) queue.push(n, n, "item");
  expect(queue.size).toBe(1_000);
  taken(queue, 1_000);
  expect(queue.size).toBe(0);
  expect(queue.shift()).toBeUndefined();
});
