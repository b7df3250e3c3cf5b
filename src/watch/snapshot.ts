import type { WatchedChange, WatchMessage } from "../domain/watch-message.ts";
import { checkResumable } from "./catch-up.ts";
import type { WatchDependencies } from "./dependencies.ts";
import { NewestChanges } from "./newest-changes.ts";
import { SnapshotProgress } from "./snapshot-progress.ts";
import { readWithRetries, untilReached } from "./waits.ts";
import { MESSAGE_CHANGES, type Watcher } from "./watcher.ts";

/**
 * Sends the agents that pass the filter, page by page, and what changes meanwhile, until the set is as of one revision. Then
 * the watcher follows the hub. Returns false when the caller is gone.
 *
 * There is no long transaction, and no more than one page in memory: each page is a statement of its own, as of its own
 * revision. Before a page, the agents of earlier pages are brought to its revision. That keeps the order, too: if an
 * `agent_id` passed to a new agent, the old agent leaves before the new one is shown.
 */
export async function* sendSnapshot(
  watcher: Watcher,
  dependencies: WatchDependencies,
): AsyncGenerator<WatchMessage, boolean> {
  const { hub, source, semaphore, pageSize } = dependencies;
  const progress = new SnapshotProgress();
  watcher.beginSnapshot(progress);
  for (;;) {
    const hasMissed = watcher.rejoin();
    hub.follow(watcher);
    progress.beginPage();
    watcher.beginPage();
    const page = yield* readWithRetries(watcher, semaphore, () =>
      source.readSnapshotPage(watcher.query.filter, progress.coveredTo, pageSize),
    );
    if (page === undefined) return false;
    if (!(yield* untilReached(watcher, page.revision, dependencies))) return false;
    const from = watcher.position;
    const changes = watcher.takeChangesBefore(page.revision, progress);
    if (hasMissed || watcher.isBehind) {
      if (!(yield* sendMissed(watcher, progress, { from, upTo: page.revision }, dependencies))) return false;
    } else if (!(yield* sendChanges(watcher, changes))) return false;
    const last = page.agents.at(-1);
    if (last === undefined || page.agents.length < pageSize) {
      // From here on, all ids are covered, also those of agents to come.
      watcher.endSnapshot();
      yield watcher.message({ snapshotAgents: page.agents, bookmark: { snapshotComplete: true } });
      return true;
    }
    progress.endPage(last.id);
    yield watcher.message({ snapshotAgents: page.agents });
  }
}

function* sendChanges(watcher: Watcher, changes: readonly WatchedChange[]): Generator<WatchMessage, boolean> {
  for (let sent = 0; sent < changes.length; sent += MESSAGE_CHANGES) {
    if (!watcher.isOpen()) return false;
    yield watcher.message({ changes: changes.slice(sent, sent + MESSAGE_CHANGES) });
  }
  return true;
}

/**
 * Sends the changes for which the queue of a watcher that conflates had no room, from the log: those after one page's
 * revision up to the next one's, of agents that earlier pages have shown. Returns false when the caller is gone.
 */
async function* sendMissed(
  watcher: Watcher,
  progress: SnapshotProgress,
  { from, upTo }: { readonly from: bigint; readonly upTo: bigint },
  { source, semaphore, pageSize, queueLimit }: WatchDependencies,
): AsyncGenerator<WatchMessage, boolean> {
  const limit = Math.min(pageSize, queueLimit);
  const missed = new NewestChanges(queueLimit);
  // No agent was shown before the first page.
  let revision = progress.coveredTo === 0n ? upTo : from;
  while (revision < upTo) {
    const after = revision;
    const page = yield* readWithRetries(watcher, semaphore, () => source.read(after, limit));
    if (page === undefined) return false;
    checkResumable(page, after);
    const last = page.transitions.at(-1);
    revision = last !== undefined && page.transitions.length >= limit && last.revision < upTo ? last.revision : upTo;
    for (const transition of page.transitions) {
      if (transition.revision > upTo || !progress.covers(transition.id)) continue;
      const change = watcher.changeOf(transition);
      if (change !== undefined) missed.push(change, revision);
    }
    if (missed.size + limit > queueLimit) missed.shrink();
    while (missed.size > 0 && (revision === upTo || missed.size + limit > queueLimit)) {
      const batch = missed.take(MESSAGE_CHANGES, revision);
      if (!watcher.isOpen()) return false;
      if (batch !== undefined) yield watcher.message({ changes: batch.changes });
    }
  }
  return true;
}
