import type { WatchMessage, WatchQuery } from "../domain/watch-message.ts";
import { tellSince } from "./catch-up.ts";
import { watchedLongEnough } from "./refusals.ts";
import { tellSnapshot } from "./snapshot.ts";
import type { WatchSurroundings } from "./surroundings.ts";
import { Watcher } from "./watcher.ts";

/**
 * One watch, from its beginning to its end: first what was before (a snapshot, or the changes since a revision), then
 * what comes. Reads on only when the consumer has taken what was told.
 */
export async function* watchStream(
  query: WatchQuery,
  signal: AbortSignal,
  surroundings: WatchSurroundings,
  connection?: object,
): AsyncGenerator<WatchMessage, void> {
  const { hub, queueLimit, maxAgeMs } = surroundings;
  const watcher = new Watcher(query, signal, queueLimit, maxAgeMs, connection);
  try {
    hub.join(watcher);
    const { afterRevision } = query;
    let following = yield* afterRevision === undefined
      ? tellSnapshot(watcher, surroundings)
      : tellSince(watcher, afterRevision, surroundings);
    while (following && watcher.goesOn()) {
      if (watcher.mayEnd) {
        yield watcher.message({ bookmark: { snapshotComplete: false } });
        throw watchedLongEnough();
      }
      if (watcher.isBehind) {
        following = yield* tellSince(watcher, watcher.after, surroundings);
        continue;
      }
      const message = watcher.next(hub.position);
      if (message === undefined) await watcher.wait(watcher.endsAt);
      else yield message;
    }
  } finally {
    hub.leave(watcher);
    watcher.close();
  }
}
