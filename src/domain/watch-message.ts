import type { ChangeType } from "../../common/contract/enum-names.ts";
import type { Transition } from "./agent.ts";
import type { ExpiryBrake, StatusTally } from "./directories.ts";
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

/** A request to watch the counts of the fleet. */
export interface FleetWatchQuery {
  readonly filter: AgentFilter;
  /** The longest time without a message, in milliseconds. */
  readonly bookmarkMs: number;
}

/** Counts that replace those of earlier messages. */
export interface FleetWatchMessage {
  /** Everything up to it is counted. 0 until the state is complete. */
  readonly revision: bigint;
  /** All agents that pass the filter. */
  readonly all: StatusTally;
  /** The claws that changed. Without statuses: the claw has no agents any more. */
  readonly claws: ReadonlyMap<string, StatusTally>;
  /** Undefined for callers whose scope does not cover all agents. */
  readonly brake: ExpiryBrake | undefined;
}
