import type { WatchedChange } from "../domain/watch-message.ts";

/** Changes to send in one message. */
export interface ChangeBatch {
  readonly changes: readonly WatchedChange[];
  /** With these changes everything up to it is sent; undefined: a client cannot resume from here. */
  readonly completeTo: bigint | undefined;
}

/** The queue of changes for one watcher. */
export interface WaitingChanges {
  /** The number of changes in memory, with those of a batch that is being sent. */
  readonly size: number;
  /**
   * Adds a change. Changes that one read of the feed brought have the same `delivery`, its position after the read. Returns
   * false when there is no room.
   */
  push(change: WatchedChange, delivery: bigint): boolean;
  /** Merges changes where that makes room. */
  shrink(): void;
  /**
   * The next changes to send, at most `limit`. Everything up to `position` was pushed. Undefined: nothing waits.
   */
  take(limit: number, position: bigint): ChangeBatch | undefined;
  /** A page of a snapshot is being read. It is unknown which changes it will show, so changes are not merged meanwhile. */
  beginPage(): void;
  /** The page is as of `revision`: removes and returns all changes up to it. */
  endPage(revision: bigint): readonly WatchedChange[];
  /** Drops the changes that wait. A batch that is being sent goes on, so that a client can resume from its end. */
  forget(): void;
}

/** Keeps every change, in the order of revisions: a client can resume from each. */
export class EveryChange implements WaitingChanges {
  readonly #limit: number;
  #changes: WatchedChange[] = [];

  /** `limit`: the greatest number of changes that wait. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#changes.length;
  }

  push(change: WatchedChange): boolean {
    if (this.#changes.length >= this.#limit) return false;
    this.#changes.push(change);
    return true;
  }

  take(limit: number, position: bigint): ChangeBatch | undefined {
    if (this.#changes.length === 0) return undefined;
    const changes = this.#changes.splice(0, limit);
    const last = changes.at(-1);
    return { changes, completeTo: this.#changes.length === 0 ? position : last?.transition.revision };
  }

  shrink(): void {}

  beginPage(): void {}

  endPage(revision: bigint): readonly WatchedChange[] {
    return takeUpTo(this.#changes, revision);
  }

  forget(): void {
    this.#changes = [];
  }
}

/** Removes the changes up to a revision from a list that is in the order of revisions, and returns them. */
export function takeUpTo(changes: WatchedChange[], revision: bigint): WatchedChange[] {
  const rest = changes.findIndex(({ transition }) => transition.revision > revision);
  return changes.splice(0, rest === -1 ? changes.length : rest);
}
