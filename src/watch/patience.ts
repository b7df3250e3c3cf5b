import { Backoff } from "../storage/backoff.ts";
import { failureKind, refusalFor } from "../storage/failures.ts";
import type { Turnstile } from "./turnstile.ts";
import type { WatchMessage } from "./watch-message.ts";
import type { Watcher } from "./watcher.ts";

const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 2_000;

/** Waits until `ready`, with bookmarks meanwhile. Returns false when the caller is gone. */
export async function* until(
  watcher: Watcher,
  ready: () => boolean,
  deadline?: number,
): AsyncGenerator<WatchMessage, boolean> {
  while (watcher.goesOn()) {
    if (ready()) return true;
    const bookmark = watcher.dueBookmark();
    if (bookmark === undefined) await watcher.wait(deadline);
    else yield bookmark;
  }
  return false;
}

/**
 * Reads something for a watcher, with bookmarks meanwhile. A stream that has begun outlives a database that is away: it
 * is read when it is back. Returns undefined when the caller is gone.
 *
 * @throws Refusal DATABASE_UNAVAILABLE when the database is away before anything was said
 */
export async function* reading<Result>(
  watcher: Watcher,
  turnstile: Turnstile,
  read: () => Promise<Result>,
): AsyncGenerator<WatchMessage, Result | undefined> {
  const backoff = new Backoff(FIRST_RETRY_MS, LONGEST_RETRY_MS);
  for (;;) {
    let outcome: { readonly result: Result } | { readonly error: unknown } | undefined;
    // Whoever is gone by the time of its turn asks nothing.
    const attempt = turnstile
      .pass(async () => (watcher.goesOn() ? { result: await read() } : undefined))
      .then(
        (found) => {
          outcome = found;
        },
        (error: unknown) => {
          outcome = { error };
        },
      );
    watcher.wakeAfter(attempt);
    if (!(yield* until(watcher, () => outcome !== undefined)) || outcome === undefined) return undefined;
    if ("result" in outcome) return outcome.result;
    if (!watcher.spoken || failureKind(outcome.error) === "defect") throw refusalFor(outcome.error);
    const retryAt = performance.now() + backoff.next();
    if (!(yield* until(watcher, () => performance.now() >= retryAt, retryAt))) return undefined;
  }
}
