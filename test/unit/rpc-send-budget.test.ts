import { expect, test } from "vitest";
import { SendBudget } from "../../src/rpc/sockets/send-budget.ts";
import { until } from "../support/until.ts";

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("a connection at its limit sends no more until some of its bytes are sent", async () => {
  const budget = new SendBudget({ totalBytes: 10_000_000, connectionBytes: 1_000 });
  const [reader, other] = [{}, {}];
  const first = budget.sending(reader);
  first.add(1_000);
  expect([budget.hasCapacity(reader), budget.hasCapacity(other)]).toEqual([false, true]);
  const second = budget.sending(reader);
  let went = 0;
  second.onCapacity(() => {
    went += 1;
  });
  await turn();
  expect(went).toBe(0);
  first.sent(500);
  await turn();
  expect(went).toBe(1);
  first.close();
  second.close();
  expect(budget.total).toBe(0);
});

test("connections with many unsent bytes leave a quarter of the budget to those with few", () => {
  const budget = new SendBudget({ totalBytes: 40_000_000, connectionBytes: 30_000_000 });
  const [greedy, modest] = [{}, {}];
  const held = budget.sending(greedy);
  held.add(29_000_000);
  expect(budget.hasCapacity(greedy)).toBe(true);
  held.add(1_000_000);
  expect([budget.hasCapacity(greedy), budget.hasCapacity(modest)]).toEqual([false, true]);
  budget.sending(modest).add(300_000);
  expect(budget.hasCapacity(modest)).toBe(false);
});

test("the bytes of a call are released once when it ends", () => {
  const budget = new SendBudget();
  const sending = budget.sending({});
  sending.add(100);
  sending.sent(40);
  sending.close();
  sending.close();
  sending.sent(60);
  expect(budget.total).toBe(0);
});

test("waiting streams continue when all is sent, also behind one without messages", async () => {
  const budget = new SendBudget({ totalBytes: 10_000_000, connectionBytes: 1_000 });
  const [reader, other] = [{}, {}];
  const first = budget.sending(reader);
  first.add(1_000);
  const went: string[] = [];
  for (const name of ["one", "two", "three"]) budget.sending(reader).onCapacity(() => went.push(name));
  first.sent(1_000);
  await until("all have gone on", () => went.length === 3);
  expect(budget.total).toBe(0);
  const greedy = budget.sending(other);
  greedy.add(1_000);
  const writing = budget.sending(other);
  writing.onCapacity(() => writing.add(1_000));
  budget.sending(other).onCapacity(() => went.push("too early"));
  greedy.sent(1_000);
  for (let n = 0; n < 5; n += 1) await turn();
  expect(went).not.toContain("too early");
});
