/** Numbers in [0, 1) that are the same for the same seed. Mulberry32: a demo needs no better. */
export type Random = () => number;

export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A seed for a part of the whole, so that what one part draws does not move the others. */
export function seedFor(seed: number, part: string): number {
  let hash = seed >>> 0;
  for (const character of part) hash = (Math.imul(hash, 31) + (character.codePointAt(0) ?? 0)) >>> 0;
  return hash;
}

/** Uniform between two numbers. */
export function between(random: Random, low: number, high: number): number {
  return low + random() * (high - low);
}

/** One of them; undefined when there is none. */
export function pick<Item>(random: Random, items: readonly Item[]): Item | undefined {
  return items[Math.floor(random() * items.length)];
}
