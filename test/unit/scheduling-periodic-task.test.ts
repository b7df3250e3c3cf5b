import { pino } from "pino";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { PeriodicTask } from "../../common/scheduling/periodic-task.ts";
import { isLost } from "../../src/storage/failures.ts";

const log = pino({ level: "silent" });

/** Longer than the interval, and than the random part of the first one. */
const LONG_MS = 7_000;

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

/** Starts a task whose first run takes this long and ends this way. @returns the number of runs so far */
function task(share: number, tookMs: number, end: () => void): { readonly runs: number } & AsyncDisposable {
  let runs = 0;
  const it = new PeriodicTask({
    isLost,
    name: "work",
    everyMs: 1_000,
    share,
    log,
    run: async () => {
      runs += 1;
      if (runs > 1) return;
      await new Promise((resolve) => setTimeout(resolve, tookMs));
      end();
    },
  });
  it.start();
  return {
    get runs() {
      return runs;
    },
    [Symbol.asyncDispose]: () => it.close(),
  };
}

test("runs a slow task less often, by its share of the time", async () => {
  await using some = task(0.1, LONG_MS, () => undefined);
  await vi.advanceTimersByTimeAsync(LONG_MS + 9 * LONG_MS - 10);
  expect(some.runs).toBe(1);
  await vi.advanceTimersByTimeAsync(20);
  expect(some.runs).toBe(2);
});

test("runs a task soon again that waited for an absent database", async () => {
  await using some = task(0.02, LONG_MS, () => {
    throw new Error("Query read timeout");
  });
  await vi.advanceTimersByTimeAsync(2 * LONG_MS + 10);
  expect(some.runs).toBe(2);
});

test("does not delay a task for days after a freeze of an hour", async () => {
  await using some = task(0.02, 3_600_000, () => undefined);
  await vi.advanceTimersByTimeAsync(3_600_000 + 300_010);
  expect(some.runs).toBe(2);
});
