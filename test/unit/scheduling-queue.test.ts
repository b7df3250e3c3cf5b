import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Queue } from "../../common/scheduling/queue.ts";

describe("a queue", () => {
  test("returns undefined when it is empty", () => {
    const queue = new Queue<object>();
    expect(queue.take()).toBeUndefined();
    queue.putBack([]);
    expect(queue.size).toBe(0);
    expect(queue.take()).toBeUndefined();
  });

  test("equals an array with push, shift and unshift after any operations", () => {
    const step = fc.oneof(
      fc.record({ push: fc.integer({ min: 1, max: 3_000 }) }),
      fc.record({ take: fc.integer({ min: 1, max: 3_000 }) }),
      // As many of the items taken last as there are.
      fc.record({ putBack: fc.integer({ min: 0, max: 2_000 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
        const queue = new Queue<{ n: number }>();
        const array: { n: number }[] = [];
        let n = 0;
        for (const one of steps) {
          if ("push" in one) {
            for (let times = 0; times < one.push; times += 1) {
              const item = { n: n++ };
              queue.push(item);
              array.push(item);
            }
          } else if ("take" in one) {
            for (let times = 0; times < one.take; times += 1) expect(queue.take()).toBe(array.shift());
          } else {
            const items = Array.from({ length: one.putBack }, () => ({ n: n++ }));
            queue.putBack(items);
            array.unshift(...items);
          }
          expect(queue.size).toBe(array.length);
        }
        for (const item of array) expect(queue.take()).toBe(item);
        expect(queue.take()).toBeUndefined();
      }),
      { numRuns: 50 },
    );
  });
});
