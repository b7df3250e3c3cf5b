import { reading, untilReached } from "./patience.ts";
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
  surroundings: WatchSurroundings,
): AsyncGenerator<WatchMessage, boolean> {
  const { hub, source, turnstile, pageSize } = surroundings;
  const front = new SnapshotFront();
  watcher.beginSnapshot(front);
  hub.follow(watcher);
  for (;;) {
    front.beginPage();
    const page = yield* reading(watcher, turnstile, () =>
      source.readSnapshotPage(watcher.query.filter, front.coveredTo, pageSize),
    );
    if (page === undefined) return false;
    if (!(yield* untilReached(watcher, page.revision, surroundings))) return false;
    const news = watcher.takeNews(front, page.revision);
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
    yield watcher.message({ snapshotAgents: page.agents });
  }
}
