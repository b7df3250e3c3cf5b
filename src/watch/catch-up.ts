import type { Transition } from "../domain/agent.ts";
import { revisionCompacted, revisionInFuture } from "../storage/refusals.ts";
import type { LogPage } from "../storage/transition-log.ts";
import { reading } from "./patience.ts";
import type { WatchSurroundings } from "./surroundings.ts";
import type { WatchMessage } from "./watch-message.ts";
import type { Watcher } from "./watcher.ts";

/**
 * Tells what came after a revision, from memory where that reaches back so far and from the log where it does not, until
 * the watcher can follow the hub. Returns false when the caller is gone.
 *
 * @throws Refusal REVISION_IN_FUTURE, REVISION_COMPACTED
 */
export async function* tellSince(
  watcher: Watcher,
  after: bigint,
  { hub, source, turnstile, pageSize }: WatchSurroundings,
): AsyncGenerator<WatchMessage, boolean> {
  watcher.advance(after);
  let revision = after;
  while (watcher.goesOn()) {
    const recalled = hub.recall(revision, pageSize);
    if (recalled !== undefined && recalled.length < pageSize) {
      // In one go with the reading: what the hub gets from here on follows right after.
      hub.follow(watcher);
      for (const transition of recalled) watcher.offer(transition);
      watcher.greet();
      return true;
    }
    let transitions: readonly Transition[];
    if (recalled === undefined) {
      const from = revision;
      const page = yield* reading(watcher, turnstile, () => source.read(from, pageSize));
      if (page === undefined) return false;
      check(page, from);
      transitions = page.transitions;
      revision = page.newest;
    } else {
      transitions = recalled;
    }
    const last = transitions.at(-1);
    if (last !== undefined && transitions.length >= pageSize) revision = last.revision;
    const changes = transitions.flatMap((transition) => watcher.changeOf(transition) ?? []);
    watcher.advance(revision);
    // The feed is not here yet: it will say what comes after, and what is known here already is not said twice.
    const ahead = revision > hub.position;
    if (ahead) hub.follow(watcher);
    const message = changes.length > 0 ? watcher.message({ changes }) : watcher.dueBookmark();
    if (message !== undefined) yield message;
    if (ahead) {
      watcher.greet();
      return true;
    }
  }
  return false;
}

/** The database's word, since this replica may not have read that far. */
function check({ newest, oldest, lost }: LogPage, after: bigint): void {
  if (after > newest) throw revisionInFuture(newest);
  if (after < oldest || lost) throw revisionCompacted(oldest);
}
