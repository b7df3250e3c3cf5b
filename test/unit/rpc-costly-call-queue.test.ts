import { expect, test } from "vitest";
import { Refusal } from "../../src/domain/errors.ts";
import { CostlyCalls } from "../../src/rpc/pipeline/costly-call-queue.ts";

const living = new AbortController().signal;

/** Calls that end on request of the test. */
function work() {
  const begun: string[] = [];
  const ends = new Map<string, () => void>();
  const make = (name: string) => (): Promise<string> => {
    begun.push(name);
    return new Promise((resolve) => ends.set(name, () => resolve(name)));
  };
  return { begun, make, end: (name: string) => ends.get(name)?.() };
}

async function until(holds: () => boolean): Promise<void> {
  for (const end = performance.now() + 5_000; !holds(); ) {
    if (performance.now() > end) throw new Error("not in time");
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

test("starts two calls at once, and then one of each caller in turn", async () => {
  const calls = new CostlyCalls();
  const { begun, make, end } = work();
  const many = {};
  for (let n = 0; n < 5; n += 1) void calls.run("many", many, living, make(`many ${n}`));
  const few = calls.run("few", {}, living, make("few"));
  expect(begun).toEqual(["many 0", "many 1"]);
  end("many 0");
  end("many 1");
  await until(() => begun.length === 4);
  expect(begun.slice(2)).toEqual(["many 2", "few"]);
  end("few");
  expect(await few).toBe("few");
});

test("rejects a connection with too many waiting calls, and no other one", async () => {
  const calls = new CostlyCalls();
  const { make } = work();
  const greedy = {};
  const refusals: Refusal[] = [];
  for (let n = 0; n < 200; n += 1) {
    try {
      void calls.run("caller", greedy, living, make(`${n}`));
    } catch (thrown) {
      if (thrown instanceof Refusal) refusals.push(thrown);
    }
  }
  expect(refusals).toHaveLength(70);
  expect(refusals[0]).toMatchObject({ reason: "LIMIT_EXCEEDED", metadata: { limit: "waitingReads" } });
  expect(() => calls.run("caller", {}, living, make("other"))).not.toThrow();
});

test("never starts a call whose client has gone", async () => {
  const calls = new CostlyCalls();
  const { begun, make, end } = work();
  const gone = new AbortController();
  void calls.run("one", {}, living, make("first"));
  void calls.run("one", {}, living, make("second"));
  void calls.run("one", {}, gone.signal, make("gone"));
  const last = calls.run("one", {}, living, make("last"));
  gone.abort();
  end("first");
  await until(() => begun.includes("last"));
  end("last");
  await last;
  expect(begun).toEqual(["first", "second", "last"]);
});

test("passes on errors of a call", async () => {
  const calls = new CostlyCalls();
  await expect(
    calls.run("one", {}, living, () => {
      throw new Error("broken");
    }),
  ).rejects.toThrow("broken");
});

test("keeps no state of calls that ended while they waited", async () => {
  const calls = new CostlyCalls();
  const { promise: never } = Promise.withResolvers<void>();
  const connection = {};
  const signal = new AbortController().signal;
  for (let n = 0; n < 2; n += 1) void calls.run("caller", {}, signal, () => never);
  const ended = new AbortController();
  let begun = 0;
  const work = (): void => {
    begun += 1;
  };
  for (let n = 0; n < 128; n += 1) void calls.run("caller", connection, ended.signal, work);
  expect(() => calls.run("caller", connection, signal, work)).toThrow(/128 calls of this connection wait/);
  ended.abort();
  await calls.run("caller", connection, signal, work);
  expect(begun).toBe(1);
});
