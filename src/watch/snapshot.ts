import { revisionCompacted } from "../storage/refusals.ts";
import { reading, until } from "./patience.ts";
import { SnapshotFront } from "./snapshot-front.ts";
import type { WatchSurroundings } from "./surroundings.ts";
import type { WatchMessage } from "./watch-message.ts";
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
  { hub, source, turnstile, wakeFeed, pageSize }: WatchSurroundings,
): AsyncGenerator<WatchMessage, boolean> {
  const front = new SnapshotFront();
  watcher.beginSnapshot(front);
  hub.follow(watcher);
  let revision: bigint | undefined;
  for (;;) {
    front.beginPage();
    const page = yield* reading(watcher, turnstile, () =>
      source.readSnapshotPage(watcher.query.filter, front.coveredTo, pageSize),
    );
    if (page === undefined) return false;
    if (revision !== undefined) {
      // Not the history that the pages before were read from.
      if (page.revision < revision) throw revisionCompacted(page.revision);
      if (hub.position < page.revision) wakeFeed();
      watcher.awaitPosition(page.revision);
      if (!(yield* until(watcher, () => hub.position >= page.revision))) return false;
      watcher.awaitPosition(undefined);
    }
    revision = page.revision;
    const news = watcher.takeNews(front, revision);
    for (let told = 0; told < news.length; told += MESSAGE_CHANGES) {
      if (!watcher.goesOn()) return false;
      yield watcher.message({ changes: news.slice(told, told + MESSAGE_CHANGES) });
    }
    const last = page.agents.at(-1);
    if (last === undefined || page.agents.length < pageSize) {
      // All ids that will ever be are covered from here on.
      watcher.endSnapshot();
      yield watcher.message({ snapshotAgents: page.agents, bookmark: { snapshotComplete: true } });
      return true;
    }
    front.endPage(last.id);
    watcher.endPage(front);
    yield watcher.message({ snapshotAgents: page.agents });
  }
}
