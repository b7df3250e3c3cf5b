import type { ChangeType } from "../contract/words.ts";
import type { Transition } from "./agent.ts";
import type { AgentFilter, WatchedAgent } from "./filter.ts";

/** What somebody wants to watch. */
export interface WatchQuery {
  readonly filter: AgentFilter;
  /** Only what comes after it. Undefined: begin with a snapshot. */
  readonly afterRevision: bigint | undefined;
  /** The watcher would rather have the newest state of each agent than every step, while it is slow. */
  readonly conflate: boolean;
  /** How often to say how far the stream has come, in milliseconds. */
  readonly bookmarkMs: number;
}

export interface WatchedChange {
  readonly type: ChangeType;
  readonly transition: Transition;
  /** How many transitions were merged into this one besides it. */
  readonly conflated: number;
}

export interface WatchMessage {
  /**
   * Where to resume from: nothing at or below it is undelivered. 0 before the snapshot is complete. For a watcher that
   * conflates it moves only when what it was told is whole: then nothing above it was told, either.
   */
  readonly revision: bigint;
  /** As of their own revisions; before any change in the same message. */
  readonly snapshotAgents: readonly WatchedAgent[];
  /** In the order of revisions; merged ones in the order of the first that was merged. */
  readonly changes: readonly WatchedChange[];
  readonly bookmark: { readonly snapshotComplete: boolean } | undefined;
}

/** What a message says besides its revision. */
export type WatchMessageParts = Partial<Omit<WatchMessage, "revision">>;
