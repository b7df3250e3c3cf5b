import { Refusal } from "../domain/errors.ts";

/** Watchers of a replica that stops do not all come back at the same moment. */
const LONGEST_RETRY_MS = 2_000;
/** They do not end at the same moment in the first place. */
const LONGEST_REOPENING_MS = 250;

export function watcherTooSlow(revision: bigint): Refusal {
  return new Refusal(
    "WATCHER_TOO_SLOW",
    revision === 0n
      ? "The watcher read its snapshot more slowly than agents change. Start again, with a narrower filter or a faster reader."
      : "The watcher reads more slowly than agents change. Go on from the revision in the metadata, with a narrower filter or a faster reader.",
    { metadata: { revision: revision.toString() } },
  );
}

/** Before a replica knows where the log ends. */
export function starting(): Refusal {
  return new Refusal("DATABASE_UNAVAILABLE", "This replica is still starting. Try again shortly.", {
    retryAfterMs: 1_000,
  });
}

export function draining(): Refusal {
  return new Refusal("DRAINING", "This replica is about to stop. Resume on another one from the last revision.", {
    retryAfterMs: Math.round(Math.random() * LONGEST_RETRY_MS),
  });
}

/** The end of a watch that is as old as one gets. What came before it, a bookmark, says where to resume from. */
export function watchedLongEnough(): Refusal {
  return new Refusal(
    "DRAINING",
    "Watches end after some time, so that they spread over the replicas. Resume from the last revision, on any of them.",
    { retryAfterMs: Math.ceil(Math.random() * LONGEST_REOPENING_MS) },
  );
}
