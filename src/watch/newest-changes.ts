import type { ChangeType } from "../contract/words.ts";
import type { WatchedChange } from "../domain/watch-message.ts";
import { type Telling, takeUpTo, type WaitingChanges } from "./waiting-changes.ts";

/** What two changes of one agent in a row are to somebody who heard of neither. Undefined: nothing. */
const MERGED: Readonly<Record<ChangeType, Readonly<Record<ChangeType, ChangeType | undefined>>>> = {
  entered: { entered: "entered", updated: "entered", left: undefined },
  updated: { entered: "updated", updated: "updated", left: "left" },
  left: { entered: "updated", updated: "updated", left: "left" },
};

/**
 * The newest change of each agent. What arrived together waits as it came, so that a watcher that keeps up hears of every
 * step; when more arrives before it was told, what waited is merged: by the agent's own number, each at its first place.
 *
 * Merged changes are told in batches: everything that waits at one moment. Between the changes of a batch there is no
 * place to resume from (one that stands early may carry a late state), behind its last one there is: the watcher's set is
 * then as of that moment. So `reached` is told with the last part of a batch alone.
 */
export class NewestChanges implements WaitingChanges {
  readonly #limit: number;
  /** Merged, by the agents' own numbers, in the order of their first places. */
  #merged = new Map<bigint, WatchedChange>();
  /** What the last delivery brought. */
  #arrived: WatchedChange[] = [];
  #delivery = 0n;
  #pageUnderWay = false;
  /** What is being told, backwards, and the position that is reached with it. */
  #batch: WatchedChange[] = [];
  #batchPosition = 0n;

  /** `limit`: changes that wait at most, merged ones counted once. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#batch.length + this.#merged.size + this.#arrived.length;
  }

  push(change: WatchedChange, delivery: bigint): boolean {
    if (delivery !== this.#delivery) this.#merge();
    this.#delivery = delivery;
    if (this.size >= this.#limit) this.#merge();
    if (this.size >= this.#limit && !this.#takesNoRoom(change)) return false;
    this.#arrived.push(change);
    if (this.size > this.#limit) this.#merge();
    return true;
  }

  shrink(): void {
    this.#merge();
  }

  take(limit: number, position: bigint): Telling | undefined {
    if (this.#batch.length === 0) {
      this.#batch = [...this.#merged.values(), ...this.#arrived].reverse();
      this.#batchPosition = position;
      this.forget();
      if (this.#batch.length === 0) return undefined;
    }
    const changes: WatchedChange[] = [];
    for (let change = this.#batch.pop(); change !== undefined; change = this.#batch.pop()) {
      changes.push(change);
      if (changes.length >= limit) break;
    }
    return { changes, reached: this.#batch.length === 0 ? this.#batchPosition : undefined };
  }

  beginPage(): void {
    // All of it is older than the page will be.
    this.#merge();
    this.#pageUnderWay = true;
  }

  endPage(revision: bigint): readonly WatchedChange[] {
    this.#pageUnderWay = false;
    const older = [...this.#merged.values(), ...takeUpTo(this.#arrived, revision)];
    this.#merged.clear();
    return older;
  }

  forget(): void {
    this.#merged = new Map();
    this.#arrived = [];
  }

  /** It can be merged into what waits already. */
  #takesNoRoom(change: WatchedChange): boolean {
    return !this.#pageUnderWay && this.#merged.has(change.transition.id);
  }

  #merge(): void {
    if (this.#pageUnderWay) return;
    for (const change of this.#arrived) {
      const { id } = change.transition;
      const known = this.#merged.get(id);
      const merged = known === undefined ? change : mergedOf(known, change);
      // A map keeps the place of a key that is set again.
      if (merged === undefined) this.#merged.delete(id);
      else this.#merged.set(id, merged);
    }
    this.#arrived = [];
  }
}

function mergedOf(older: WatchedChange, newer: WatchedChange): WatchedChange | undefined {
  const type = MERGED[older.type][newer.type];
  if (type === undefined) return undefined;
  return { type, transition: newer.transition, conflated: older.conflated + 1 + newer.conflated };
}
