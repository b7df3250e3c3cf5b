import type { FairSemaphore } from "../scheduling/fair-semaphore.ts";
import type { TransitionLog } from "../storage/transition-log.ts";
import type { Hub } from "./hub.ts";

/** What all watches of a replica share. */
export interface WatchDependencies {
  readonly hub: Hub;
  readonly source: Pick<TransitionLog, "read" | "readSnapshotPage">;
  /** What watchers read before they can follow the hub goes through here, so that the feed always has a connection. */
  readonly semaphore: FairSemaphore;
  wakeFeed(): void;
  /** Agents, or transitions, read at once. */
  readonly pageSize: number;
  /** Changes that wait for one watcher at most. */
  readonly queueLimit: number;
  /** How old a watch gets, give or take a quarter, in milliseconds. */
  readonly maxAgeMs: number;
}
