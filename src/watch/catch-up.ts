import type { WatchMessage } from "../domain/watch-message.ts";
import { revisionCompacted, revisionInFuture } from "../storage/refusals.ts";
import { isInGap, type LogPage } from "../storage/transition-log.ts";
import type { WatchDependencies } from "./dependencies.ts";
import { reading, untilReached } from "./patience.ts";
import type { Watcher } from "./watcher.ts";

/**
 * Tells what came after a revision, from memory where that reaches back so far and from the log where it does not, until
 * the watcher can follow the hub, or has been open for long enough. Returns false when the caller is gone.
 *
 * @throws Refusal REVISION_IN_FUTURE, REVISION_COMPACTED
 */
export async function* tellSince(
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
  while (watcher.goesOn()) {
    // Who is far behind and slow is not spared, but every stream gets somewhere.
    if (watcher.mayEnd && watcher.after > after) return true;
    let transitions = hub.recall(revision, pageSize);
    if (transitions !== undefined && transitions.length < pageSize) {
      // In one go with the reading: what the hub gets from here on follows right after.
      hub.follow(watcher);
      for (const transition of transitions) watcher.offer(transition, hub.position);
      watcher.greet();
      return true;
    }
    if (transitions === undefined) {
      const from = revision;
      const page = yield* reading(watcher, semaphore, () => source.read(from, pageSize));
      if (page === undefined) return false;
      check(page, from);
      if (!(yield* untilReached(watcher, page.newest, dependencies))) return false;
      transitions = page.transitions;
      revision = page.newest;
    }
    const last = transitions.at(-1);
    if (last !== undefined && transitions.length >= pageSize) revision = last.revision;
    if (watcher.query.conflate) {
      for (const transition of transitions) watcher.offer(transition, revision);
      yield* tellMerged(watcher, revision, pageSize);
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
 * A watcher that conflates reads on before it tells: who is pages behind is behind by less when they are merged. It tells
 * when there is no room for another page, or no time. Everything up to `revision` was offered.
 */
function* tellMerged(watcher: Watcher, revision: bigint, pageSize: number): Generator<WatchMessage, void> {
  if (!watcher.hasNews) watcher.advance(revision);
  if (watcher.isOld || !watcher.hasRoomFor(pageSize)) {
    while (watcher.hasNews && watcher.goesOn()) {
      const message = watcher.next(revision);
      if (message !== undefined) yield message;
    }
  }
  const bookmark = watcher.dueBookmark();
  if (bookmark !== undefined) yield bookmark;
}

/** The database's word, since this replica may not have read that far. */
export function check({ newest, oldest, gaps }: LogPage, after: bigint): void {
  if (after > newest) throw revisionInFuture(newest);
  if (after < oldest || isInGap(after, gaps)) throw revisionCompacted(oldest);
}
