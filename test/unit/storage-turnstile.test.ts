import { expect, it } from "vitest";
import { Turnstile } from "../../src/storage/turnstile.ts";

const LATER = (): number => performance.now() + 60_000;

it("lets so many pass at once, and the others in the order they came", async () => {
  const turnstile = new Turnstile(2);
  const passed: number[] = [];
  const places: Disposable[] = [];
  const entering = [1, 2, 3, 4].map(async (n) => {
    const place = await turnstile.enter(LATER());
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

it("gives no place after the deadline, and keeps none for who waited in vain", async () => {
  const turnstile = new Turnstile(1);
  const first = await turnstile.enter(LATER());
  expect(await turnstile.enter(performance.now())).toBeUndefined();
  first?.[Symbol.dispose]();
  expect(await turnstile.enter(performance.now())).toBeDefined();
});
