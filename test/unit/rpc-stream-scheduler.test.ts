import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { StreamScheduler } from "../../src/rpc/sockets/stream-scheduler.ts";

// A turn ends early on a slow machine, so the clock stands still.
beforeEach(() => void vi.useFakeTimers({ toFake: ["performance"] }));
afterEach(() => void vi.useRealTimers());

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("starts a single call in the next turn, never at once", async () => {
  const started: string[] = [];
  const scheduler = new StreamScheduler();
  scheduler.add({}, () => started.push("one") > 0);
  expect(started).toEqual([]);
  await turn();
  expect(started).toEqual(["one"]);
});

test("starts a limited number of calls in a turn, one of each connection after the other, in order", async () => {
  const started: string[] = [];
  const scheduler = new StreamScheduler(4);
  const [many, few] = [{}, {}];
  const add = (connection: object, name: string): void => scheduler.add(connection, () => started.push(name) > 0);
  for (let index = 0; index < 6; index += 1) add(many, `many ${index}`);
  add(few, "few 0");
  add(few, "few 1");
  await turn();
  expect(started).toEqual(["many 0", "few 0", "few 1", "many 1"]);
  add(few, "few 2");
  await turn();
  expect(started.slice(4)).toEqual(["many 2", "many 3", "many 4", "many 5"]);
  await turn();
  expect(started.slice(8)).toEqual(["few 2"]);
});

test("does not count cancelled calls", async () => {
  const started: string[] = [];
  const scheduler = new StreamScheduler(2);
  const connection = {};
  for (let index = 0; index < 1_000; index += 1) scheduler.add(connection, () => false);
  scheduler.add(connection, () => started.push("wanted") > 0);
  await turn();
  expect(started).toEqual(["wanted"]);
});
