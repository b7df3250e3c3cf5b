import type { WatchedChange, WatchMessage } from "../domain/watch-message.ts";
import { check } from "./catch-up.ts";
import type { WatchDependencies } from "./dependencies.ts";
import { NewestChanges } from "./newest-changes.ts";
import { reading, untilReached } from "./patience.ts";
import { SnapshotFront } from "./snapshot-front.ts";
import { MESSAGE_CHANGES, type Watcher } from "./watcher.ts";

/**
 * Tells the agents that pass the filter, page by page, and what changes meanwhile, until the set is as of one revision.
 * Afterwards the watcher follows the hub. Returns false when the caller is gone.
 *
 * No long transaction and no memory for more than a page: each page is a statement of its own, as of its own revision.
 * Before a page is told, the agents of earlier pages are brought to its revision. That keeps the order, too: an
 * `agent_id` that moved on to a new agent is said to have left before the new one is shown.
 */
export async function* tellSnapshot(
  watcher: Watcher,
  dependencies: WatchDependencies,
): AsyncGenerator<WatchMessage, boolean> {
  const { hub, source, semaphore, pageSize } = dependencies;
  const front = new SnapshotFront();
  watcher.beginSnapshot(front);
  for (;;) {
    const missed = watcher.rejoin();
    hub.follow(watcher);
    front.beginPage();
    watcher.beginPage();
    const page = yield* reading(watcher, semaphore, () =>
      source.readSnapshotPage(watcher.query.filter, front.coveredTo, pageSize),
    );
    if (page === undefined) return false;
    if (!(yield* untilReached(watcher, page.revision, dependencies))) return false;
    const from = watcher.after;
    const news = watcher.takeNews(front, page.revision);
    if (missed || watcher.isBehind) {
      if (!(yield* tellMissed(watcher, front, { from, upTo: page.revision }, dependencies))) return false;
    } else if (!(yield* tellNews(watcher, news))) return false;
    const last = page.agents.at(-1);
    if (last === undefined || page.agents.length < pageSize) {
      // All ids that will ever be are covered from here on.
      watcher.endSnapshot();
      yield watcher.message({ snapshotAgents: page.agents, bookmark: { snapshotComplete: true } });
      return true;
    }
    front.endPage(last.id);
    yield watcher.message({ snapshotAgents: page.agents });
  }
}

function* tellNews(watcher: Watcher, news: readonly WatchedChange[]): Generator<WatchMessage, boolean> {
  for (let told = 0; told < news.length; told += MESSAGE_CHANGES) {
    if (!watcher.goesOn()) return false;
    yield watcher.message({ changes: news.slice(told, told + MESSAGE_CHANGES) });
  }
  return true;
}

/**
 * The news for which the queue of a watcher that conflates had no room, from the log: what changed after one page's
 * revision up to the next one's, of agents that earlier pages have shown. Returns false when the caller is gone.
 */
async function* tellMissed(
  watcher: Watcher,
  front: SnapshotFront,
  { from, upTo }: { readonly from: bigint; readonly upTo: bigint },
  { source, semaphore, pageSize, queueLimit }: WatchDependencies,
): AsyncGenerator<WatchMessage, boolean> {
  const limit = Math.min(pageSize, queueLimit);
  const missed = new NewestChanges(queueLimit);
  // Before the first page nothing was shown.
  let revision = front.coveredTo === 0n ? upTo : from;
  while (revision < upTo) {
    const after = revision;
    const page = yield* reading(watcher, semaphore, () => source.read(after, limit));
    if (page === undefined) return false;
    check(page, after);
    const last = page.transitions.at(-1);
    revision = last !== undefined && page.transitions.length >= limit && last.revision < upTo ? last.revision : upTo;
    for (const transition of page.transitions) {
      if (transition.revision > upTo || !front.covers(transition.id)) continue;
      const change = watcher.changeOf(transition);
      if (change !== undefined) missed.push(change, revision);
    }
    if (missed.size + limit > queueLimit) missed.shrink();
    while (missed.size > 0 && (revision === upTo || missed.size + limit > queueLimit)) {
      const telling = missed.take(MESSAGE_CHANGES, revision);
      if (!watcher.goesOn()) return false;
      if (telling !== undefined) yield watcher.message({ changes: telling.changes });
    }
  }
  return true;
}
