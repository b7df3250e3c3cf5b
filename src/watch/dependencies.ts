import type { FairSemaphore } from "../../common/scheduling/fair-semaphore.ts";
import type { TransitionLog } from "../storage/transition-log.ts";
import type { Hub } from "./hub.ts";
import type { WatchMetrics } from "./watch-metrics.ts";

/** Shared by all watches of a replica. */
export interface WatchDependencies {
  readonly hub: Hub;
  readonly source: Pick<TransitionLog, "read" | "readSnapshotPage">;
  /** Limits the reads of watchers that do not follow the hub yet, so that the feed always has a connection. */
  readonly semaphore: FairSemaphore;
  wakeFeed(): void;
  /** Agents, or transitions, in one read. */
  readonly pageSize: number;
  /** Changes that wait for one watcher at most. */
  readonly queueLimit: number;
  /** The maximum age of a watch, give or take a quarter, in milliseconds. */
  readonly maxAgeMs: number;
  readonly metrics: WatchMetrics;
}
