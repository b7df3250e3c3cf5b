import type { WatchMessage, WatchQuery } from "../domain/watch-message.ts";
import { catchUp } from "./catch-up.ts";
import type { WatchDependencies } from "./dependencies.ts";
import { sendSnapshot } from "./snapshot.ts";
import type { WatchEnd } from "./watch-metrics.ts";
import { watchTooOld } from "./watch-refusals.ts";
import { Watcher } from "./watcher.ts";

/**
 * One watch from beginning to end: first the past (a snapshot, or the changes since a revision), then what comes. Reads on
 * only when the consumer has taken what was sent.
 */
export async function* watchStream(
  query: WatchQuery,
  signal: AbortSignal,
  dependencies: WatchDependencies,
  connection?: object,
): AsyncGenerator<WatchMessage, void> {
  const { hub, queueLimit, maxAgeMs, metrics } = dependencies;
  const watcher = new Watcher(query, signal, queueLimit, maxAgeMs, connection);
  let end: WatchEnd = { kind: "closed" };
  try {
    hub.add(watcher);
    const { afterRevision } = query;
    let isFollowing = yield* afterRevision === undefined
      ? sendSnapshot(watcher, dependencies)
      : catchUp(watcher, afterRevision, dependencies);
    while (isFollowing && watcher.isOpen()) {
      if (watcher.mayEnd) {
        yield watcher.message({ bookmark: { snapshotComplete: false } });
        end = { kind: "max_age" };
        break;
      }
      if (watcher.isBehind) {
        isFollowing = yield* catchUp(watcher, watcher.position, dependencies);
        continue;
      }
      const message = watcher.next(hub.position);
      if (message === undefined) await watcher.wait(watcher.endsAt);
      else {
        yield message;
        metrics.written(message);
      }
    }
  } catch (thrown) {
    end = { kind: "failed", thrown };
    throw thrown;
  } finally {
    hub.remove(watcher);
    watcher.close();
    metrics.ended(end);
  }
  if (end.kind === "max_age") throw watchTooOld();
}
