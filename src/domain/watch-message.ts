import type { ChangeType } from "../../common/contract/enum-names.ts";
import type { Transition } from "./agent.ts";
import type { AgentFilter, WatchedAgent } from "./filter.ts";

/** A request to watch agents. */
export interface WatchQuery {
  readonly filter: AgentFilter;
  /** Only changes after this revision. Undefined: begin with a snapshot. */
  readonly afterRevision: bigint | undefined;
  /** While the watcher is slow, merge the changes of an agent into the newest one. */
  readonly conflate: boolean;
  /** The interval of bookmarks, in milliseconds. */
  readonly bookmarkMs: number;
}

export interface WatchedChange {
  readonly type: ChangeType;
  readonly transition: Transition;
  /** How many other transitions were merged into this one. */
  readonly conflated: number;
}

export interface WatchMessage {
  /**
   * The revision to resume from: everything up to it has been delivered. 0 until the snapshot is complete. With
   * conflation it moves only when the watcher's view is consistent: then nothing above it has been delivered either.
   */
  readonly revision: bigint;
  /** Each as of its own revision. Apply them before the changes of the same message. */
  readonly snapshotAgents: readonly WatchedAgent[];
  /** In order of revisions; a merged change has the position of its first transition. */
  readonly changes: readonly WatchedChange[];
  readonly bookmark: { readonly snapshotComplete: boolean } | undefined;
}

/** The content of a message besides its revision. */
export type WatchMessageParts = Partial<Omit<WatchMessage, "revision">>;
