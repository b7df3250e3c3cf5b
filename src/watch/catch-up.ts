import type { WatchMessage } from "../domain/watch-message.ts";
import { revisionCompacted, revisionInFuture } from "../storage/refusals.ts";
import { isInGap, type LogPage } from "../storage/transition-log.ts";
import type { WatchDependencies } from "./dependencies.ts";
import { readWithRetries, untilReached } from "./waits.ts";
import type { Watcher } from "./watcher.ts";

/**
 * Sends what came after a revision, from memory where that reaches back so far and else from the log, until the watcher can
 * follow the hub or has reached its maximum age. Returns false when the caller is gone.
 *
 * @throws Refusal REVISION_IN_FUTURE, REVISION_COMPACTED
 */
export async function* catchUp(
  watcher: Watcher,
  after: bigint,
  dependencies: WatchDependencies,
): AsyncGenerator<WatchMessage, boolean> {
  const { hub, source, semaphore } = dependencies;
  // The last page from memory goes into the queue, and must fit.
  const pageSize = Math.min(dependencies.pageSize, dependencies.queueLimit);
  watcher.advance(after);
  watcher.rejoin();
  let revision = after;
  while (watcher.isOpen()) {
    // A slow watcher that is far behind ends by its age, too, but every stream makes progress first.
    if (watcher.mayEnd && watcher.position > after) return true;
    let transitions = hub.recall(revision, pageSize);
    if (transitions !== undefined && transitions.length < pageSize) {
      // In the same turn of the event loop as `recall`: what the hub receives from here on follows right after.
      hub.follow(watcher);
      for (const transition of transitions) watcher.offer(transition, hub.position);
      watcher.scheduleFirstMessage(0);
      return true;
    }
    if (transitions === undefined) {
      const from = revision;
      const page = yield* readWithRetries(watcher, semaphore, () => source.read(from, pageSize));
      if (page === undefined) return false;
      checkResumable(page, from);
      if (!(yield* untilReached(watcher, page.newest, dependencies))) return false;
      transitions = page.transitions;
      revision = page.newest;
    }
    const last = transitions.at(-1);
    if (last !== undefined && transitions.length >= pageSize) revision = last.revision;
    if (watcher.query.conflate) {
      for (const transition of transitions) watcher.offer(transition, revision);
      yield* sendMerged(watcher, revision, pageSize);
      continue;
    }
    const changes = transitions.flatMap((transition) => watcher.changeOf(transition) ?? []);
    watcher.advance(revision);
    const message = changes.length > 0 ? watcher.message({ changes }) : watcher.dueBookmark();
    if (message !== undefined) yield message;
  }
  return false;
}

/**
 * A watcher that conflates reads on before it sends: merging the changes of several pages brings it closer to the present.
 * It sends when there is no room for another page, or when the watch is old. Everything up to `revision` was offered.
 */
function* sendMerged(watcher: Watcher, revision: bigint, pageSize: number): Generator<WatchMessage, void> {
  if (!watcher.hasChanges) watcher.advance(revision);
  if (watcher.isOld || !watcher.hasRoomFor(pageSize)) {
    while (watcher.hasChanges && watcher.isOpen()) {
      const message = watcher.next(revision);
      if (message !== undefined) yield message;
    }
  }
  const bookmark = watcher.dueBookmark();
  if (bookmark !== undefined) yield bookmark;
}

/**
 * Checks that the log has everything after a revision. The database decides, since this replica may not have read so far.
 *
 * @throws Refusal REVISION_IN_FUTURE, REVISION_COMPACTED
 */
export function checkResumable({ newest, oldest, gaps }: LogPage, after: bigint): void {
  if (after > newest) throw revisionInFuture(newest);
  if (after < oldest || isInGap(after, gaps)) throw revisionCompacted(oldest);
}
