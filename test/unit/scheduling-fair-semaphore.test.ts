import { expect, test } from "vitest";
import { FairSemaphore } from "../../common/scheduling/fair-semaphore.ts";

test("admits one of each connection in turn, however many one of them queues", async () => {
  const semaphore = new FairSemaphore(1);
  const passed: string[] = [];
  const [many, few] = [{}, {}];
  const pass = (connection: object, name: string): Promise<void> =>
    semaphore.pass(connection, async () => {
      passed.push(name);
    });
  const first = Array.from({ length: 20 }, (_, n) => pass(many, `many ${n}`));
  await Promise.all([...first, pass(few, "few 0"), pass(few, "few 1")]);
  expect(passed.slice(0, 5)).toEqual(["many 0", "many 1", "few 0", "many 2", "few 1"]);
  expect(passed).toHaveLength(22);
});

test("continues after one that fails", async () => {
  const semaphore = new FairSemaphore(1);
  const failing = semaphore.pass({}, () => Promise.reject(new Error("away")));
  const next = semaphore.pass({}, () => Promise.resolve("read"));
  await expect(failing).rejects.toThrow("away");
  expect(await next).toBe("read");
});
