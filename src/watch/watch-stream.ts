import type { WatchMessage, WatchQuery } from "../domain/watch-message.ts";
import { tellSince } from "./catch-up.ts";
import type { WatchDependencies } from "./dependencies.ts";
import { tellSnapshot } from "./snapshot.ts";
import { watchedLongEnough } from "./watch-errors.ts";
import { Watcher } from "./watcher.ts";

/**
 * One watch, from its beginning to its end: first what was before (a snapshot, or the changes since a revision), then
 * what comes. Reads on only when the consumer has taken what was told.
 */
export async function* watchStream(
  query: WatchQuery,
  signal: AbortSignal,
  dependencies: WatchDependencies,
  connection?: object,
): AsyncGenerator<WatchMessage, void> {
  const { hub, queueLimit, maxAgeMs } = dependencies;
  const watcher = new Watcher(query, signal, queueLimit, maxAgeMs, connection);
  try {
    hub.join(watcher);
    const { afterRevision } = query;
    let following = yield* afterRevision === undefined
      ? tellSnapshot(watcher, dependencies)
      : tellSince(watcher, afterRevision, dependencies);
    while (following && watcher.goesOn()) {
      if (watcher.mayEnd) {
        yield watcher.message({ bookmark: { snapshotComplete: false } });
        throw watchedLongEnough();
      }
      if (watcher.isBehind) {
        following = yield* tellSince(watcher, watcher.after, dependencies);
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
