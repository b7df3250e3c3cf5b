const EVERY_MS = 10;
/** Much longer than any step takes: a limit for hangs, on the slowest machine of the tests. */
const WITHIN_MS = 40_000;
/** The same for `vi.waitFor` and `vi.waitUntil`, which give up after a second otherwise. */
export const PATIENCE = { timeout: WITHIN_MS, interval: 1 };

/**
 * Waits for a condition. @returns its value
 *
 * @param probe false, null or undefined: not yet
 * @param withinMs fails after that
 */
export async function until<T>(
  what: string,
  probe: () => T | Promise<T>,
  withinMs = WITHIN_MS,
): Promise<Exclude<T, false | null | undefined>> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const value = await probe();
    if (isThere(value)) return value;
    if (performance.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

function isThere<T>(value: T): value is Exclude<T, false | null | undefined> {
  return value !== false && value !== null && value !== undefined;
}
