import type { WatchMessage } from "../domain/watch-message.ts";
import { Backoff } from "../scheduling/backoff.ts";
import type { FairSemaphore } from "../scheduling/fair-semaphore.ts";
import { failureKind, isPermanent, refusalFor } from "../storage/failures.ts";
import type { WatchDependencies } from "./dependencies.ts";
import { FIRST_MESSAGE_MS, type Watcher } from "./watcher.ts";

/** The first may only mean that a connection of the pool had died unnoticed. */
const MOST_FAILURES_AT_FIRST = 2;
const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 2_000;

/**
 * Waits until `ready`, with bookmarks meanwhile, also beyond the watch's age: it cannot end here. Returns false when the
 * caller is gone.
 */
export async function* until(
  watcher: Watcher,
  ready: () => boolean,
  deadline = Number.POSITIVE_INFINITY,
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
 * Waits until the feed has come to a revision that was read past it. Watchers are told nothing that the feed has not
 * reached: so whatever they know, the feed knows whether its history is lost. Returns false when the caller is gone.
 */
export async function* untilReached(
  watcher: Watcher,
  revision: bigint,
  { hub, wakeFeed }: Pick<WatchDependencies, "hub" | "wakeFeed">,
): AsyncGenerator<WatchMessage, boolean> {
  if (!hub.hasReached(revision)) wakeFeed();
  hub.awaitPosition(watcher, revision);
  try {
    return yield* until(watcher, () => hub.hasReached(revision));
  } finally {
    hub.awaitPosition(watcher, undefined);
  }
}

/**
 * Reads something for a watcher, with bookmarks meanwhile. A stream that has begun outlives a database that is away: it
 * is read when it is back. Returns undefined when the caller is gone.
 *
 * @throws Refusal DATABASE_UNAVAILABLE when the database is away before anything was said
 */
export async function* reading<Result>(
  watcher: Watcher,
  semaphore: FairSemaphore,
  read: () => Promise<Result>,
): AsyncGenerator<WatchMessage, Result | undefined> {
  const backoff = new Backoff(FIRST_RETRY_MS, LONGEST_RETRY_MS);
  let failures = 0;
  for (;;) {
    if (failures > 0) watcher.greetLater(FIRST_MESSAGE_MS);
    let outcome: { readonly result: Result } | { readonly error: unknown } | undefined;
    // Whoever is gone by the time of its turn asks nothing.
    const attempt = semaphore
      .pass(watcher.connection, async () => (watcher.goesOn() ? { result: await read() } : undefined))
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
    failures += 1;
    const patient = watcher.spoken || failures < MOST_FAILURES_AT_FIRST;
    if (!patient || isPermanent(failureKind(outcome.error))) throw refusalFor(outcome.error);
    // Who was greeted meanwhile would never be refused.
    watcher.greetLater(Number.POSITIVE_INFINITY);
    const retryAt = performance.now() + backoff.next();
    if (!(yield* until(watcher, () => performance.now() >= retryAt, retryAt))) return undefined;
  }
}
