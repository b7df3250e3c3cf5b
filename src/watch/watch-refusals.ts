import { Refusal } from "../domain/errors.ts";

/** Watchers of a replica that stops reconnect within this time, at random, and not all at once. In milliseconds. */
const LONGEST_RETRY_MS = 2_000;
/** Watches that end by age are spread already. In milliseconds. */
const LONGEST_REOPENING_MS = 250;

export function watcherTooSlow(revision: bigint): Refusal {
  return new Refusal(
    "WATCHER_TOO_SLOW",
    revision === 0n
      ? "The watcher reads its snapshot more slowly than agents change. Start again with a narrower filter or a faster reader."
      : "The watcher reads more slowly than agents change. Resume from the revision in the metadata, with a narrower filter or a faster reader.",
    { metadata: { revision: revision.toString() } },
  );
}

/** The replica has not read the end of the log yet. */
export function starting(): Refusal {
  return new Refusal("DATABASE_UNAVAILABLE", "This replica is still starting. Retry in a second.", {
    retryAfterMs: 1_000,
  });
}

export function draining(): Refusal {
  return new Refusal("DRAINING", "This replica is stopping. Resume at another replica, from the last revision.", {
    retryAfterMs: Math.round(Math.random() * LONGEST_RETRY_MS),
  });
}

/** The watch has reached its maximum age. The bookmark before it says where to resume. */
export function watchTooOld(): Refusal {
  return new Refusal(
    "DRAINING",
    "The watch has reached its maximum age: watches move between replicas to spread. Resume at any replica, from the last revision.",
    { retryAfterMs: Math.ceil(Math.random() * LONGEST_REOPENING_MS) },
  );
}
