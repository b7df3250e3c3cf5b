import { expect, it } from "vitest";
import { Semaphore } from "../../common/scheduling/semaphore.ts";

const LATER = (): number => performance.now() + 60_000;

it("admits a fixed number at once, and the others in the order of their arrival", async () => {
  const semaphore = new Semaphore(2);
  const passed: number[] = [];
  const places: Disposable[] = [];
  const entering = [1, 2, 3, 4].map(async (n) => {
    const place = await semaphore.enter(LATER());
    if (place !== undefined) places.push(place);
    passed.push(n);
  });
  await Promise.all(entering.slice(0, 2));
  expect(passed).toEqual([1, 2]);
  places.shift()?.[Symbol.dispose]();
  await entering[2];
  expect(passed).toEqual([1, 2, 3]);
  places.shift()?.[Symbol.dispose]();
  await entering[3];
  expect(passed).toEqual([1, 2, 3, 4]);
});

it("gives no place after the deadline, and keeps none for a caller that timed out", async () => {
  const semaphore = new Semaphore(1);
  const first = await semaphore.enter(LATER());
  expect(await semaphore.enter(performance.now())).toBeUndefined();
  first?.[Symbol.dispose]();
  expect(await semaphore.enter(performance.now())).toBeDefined();
});
