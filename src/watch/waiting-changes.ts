import type { WatchedChange } from "../domain/watch-message.ts";

/** Some changes to tell now, and what is told with them. */
export interface Telling {
  readonly changes: readonly WatchedChange[];
  /** Everything up to it is told with these changes; undefined: more has to be told before that can be said. */
  readonly reached: bigint | undefined;
}

/** What waits to be told to one watcher. */
export interface WaitingChanges {
  /** Changes that take room, those among them that are being told. */
  readonly size: number;
  /**
   * Takes a change that `delivery` brought: the feed's position after a read, so that changes that arrived together are
   * known. Returns false when there is no room.
   */
  push(change: WatchedChange, delivery: bigint): boolean;
  /** Takes as little room as it can. */
  shrink(): void;
  /**
   * At most `limit` changes to tell next. `position`: everything up to it was pushed. Undefined: nothing waits.
   */
  take(limit: number, position: bigint): Telling | undefined;
  /** While a page of a snapshot is on its way, of which nobody knows yet what it will show, changes stay as they are. */
  beginPage(): void;
  /** The page is as of `revision`: takes out all changes up to it. */
  endPage(revision: bigint): readonly WatchedChange[];
  /** Forgets what nobody was told of yet. What is being told goes on, so that it ends at a place to resume from. */
  forget(): void;
}

/** Every change by itself, in the order of revisions: any of them is a place to resume from. */
export class EveryChange implements WaitingChanges {
  readonly #limit: number;
  #changes: WatchedChange[] = [];

  /** `limit`: changes that wait at most. */
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

  take(limit: number, position: bigint): Telling | undefined {
    if (this.#changes.length === 0) return undefined;
    const changes = this.#changes.splice(0, limit);
    const last = changes.at(-1);
    return { changes, reached: this.#changes.length === 0 ? position : last?.transition.revision };
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

/** Takes the changes up to a revision out of a list that is in their order. */
export function takeUpTo(changes: WatchedChange[], revision: bigint): WatchedChange[] {
  const rest = changes.findIndex(({ transition }) => transition.revision > revision);
  return changes.splice(0, rest === -1 ? changes.length : rest);
}
