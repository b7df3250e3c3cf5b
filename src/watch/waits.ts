import { Backoff } from "../../common/scheduling/backoff.ts";
import type { FairSemaphore } from "../../common/scheduling/fair-semaphore.ts";
import type { WatchMessage } from "../domain/watch-message.ts";
import { failureKind, isPermanent, refusalFor } from "../storage/failures.ts";
import { FIRST_MESSAGE_MS } from "./bookmark-timer.ts";
import type { WatchDependencies } from "./dependencies.ts";
import type { Watcher } from "./watcher.ts";

/** Failed reads until a watch that has sent nothing is refused. The first may only mean that a pooled connection was dead. */
const MOST_FAILURES_AT_FIRST = 2;
const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 2_000;

/**
 * Waits until `isReady`, and sends bookmarks meanwhile, also beyond the watch's maximum age: it cannot end here. Returns
 * false when the caller is gone.
 */
async function* until(
  watcher: Watcher,
  isReady: () => boolean,
  deadline = Number.POSITIVE_INFINITY,
): AsyncGenerator<WatchMessage, boolean> {
  while (watcher.isOpen()) {
    if (isReady()) return true;
    const bookmark = watcher.dueBookmark();
    if (bookmark === undefined) await watcher.wait(deadline);
    else yield bookmark;
  }
  return false;
}

/**
 * Waits until the feed has reached a revision that was read ahead of it. Watchers receive nothing that the feed has not
 * reached: so the feed detects when the history that a watcher knows is lost. Returns false when the caller is gone.
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
 * Reads something for a watcher, and sends bookmarks meanwhile. A stream that has sent a message outlives a database outage:
 * the read is retried until it succeeds. Returns undefined when the caller is gone.
 *
 * @throws Refusal DATABASE_UNAVAILABLE when the database is away before the first message
 */
export async function* readWithRetries<Result>(
  watcher: Watcher,
  semaphore: FairSemaphore,
  read: () => Promise<Result>,
): AsyncGenerator<WatchMessage, Result | undefined> {
  const backoff = new Backoff(FIRST_RETRY_MS, LONGEST_RETRY_MS);
  let failures = 0;
  for (;;) {
    if (failures > 0) watcher.scheduleFirstMessage(FIRST_MESSAGE_MS);
    let outcome: { readonly result: Result } | { readonly error: unknown } | undefined;
    // A caller may be gone by the time that its read may start.
    const attempt = semaphore
      .pass(watcher.connection, async () => (watcher.isOpen() ? { result: await read() } : undefined))
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
    const retries = watcher.hasSent || failures < MOST_FAILURES_AT_FIRST;
    if (!retries || isPermanent(failureKind(outcome.error))) throw refusalFor(outcome.error);
    // After a first message the watch could not be refused any more.
    watcher.scheduleFirstMessage(Number.POSITIVE_INFINITY);
    const retryAt = performance.now() + backoff.next();
    if (!(yield* until(watcher, () => performance.now() >= retryAt, retryAt))) return undefined;
  }
}
