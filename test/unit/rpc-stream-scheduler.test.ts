import { expect, test } from "vitest";
import { StreamScheduler } from "../../src/rpc/sockets/stream-scheduler.ts";

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("no call starts on arrival; a single call starts in the same turn", async () => {
  const begun: string[] = [];
  const scheduler = new StreamScheduler();
  scheduler.wait({}, () => begun.push("one") > 0);
  expect(begun).toEqual([]);
  await turn();
  expect(begun).toEqual(["one"]);
});

test("a limited number starts in a turn, one of each connection after the other, in each connection's order", async () => {
  const begun: string[] = [];
  const scheduler = new StreamScheduler(4);
  const [many, few] = [{}, {}];
  const bring = (who: object, name: string): void => scheduler.wait(who, () => begun.push(name) > 0);
  for (let index = 0; index < 6; index += 1) bring(many, `many ${index}`);
  bring(few, "few 0");
  bring(few, "few 1");
  await turn();
  expect(begun).toEqual(["many 0", "few 0", "few 1", "many 1"]);
  bring(few, "few 2");
  await turn();
  expect(begun.slice(4)).toEqual(["many 2", "many 3", "many 4", "many 5"]);
  await turn();
  expect(begun.slice(8)).toEqual(["few 2"]);
});

test("a cancelled call takes no place", async () => {
  const begun: string[] = [];
  const scheduler = new StreamScheduler(2);
  const who = {};
  for (let index = 0; index < 1_000; index += 1) scheduler.wait(who, () => false);
  scheduler.wait(who, () => begun.push("wanted") > 0);
  await turn();
  expect(begun).toEqual(["wanted"]);
});
