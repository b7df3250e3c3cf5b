/** The longest delay of a timer in milliseconds, 24.8 days. Node fires a longer timer after 1 ms, with a warning. */
export const LONGEST_TIMER_MS = 2_147_483_647;

/** Resolves after `ms` milliseconds (at most 24.8 days), or when the signal aborts. Never rejects. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, Math.min(ms, LONGEST_TIMER_MS));
    signal.addEventListener("abort", end, { once: true });
  });
}
