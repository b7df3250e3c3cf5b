import type { ChangeType } from "../../common/contract/enum-names.ts";
import type { WatchedChange } from "../domain/watch-message.ts";
import { type ChangeBatch, takeUpTo, type WaitingChanges } from "./waiting-changes.ts";

/** Two changes of one agent in a row, for a watcher that received neither of them. Undefined: no change. */
const MERGED: Readonly<Record<ChangeType, Readonly<Record<ChangeType, ChangeType | undefined>>>> = {
  entered: { entered: "entered", updated: "entered", left: undefined },
  updated: { entered: "updated", updated: "updated", left: "left" },
  left: { entered: "updated", updated: "updated", left: "left" },
};

/**
 * Keeps the newest change of each agent. Changes of one delivery wait as they came, so that a watcher that keeps up receives
 * every step. When another delivery arrives before they are sent, they are merged by agent, each at its first place.
 *
 * Merged changes are sent in batches: everything that waits at one moment. A client cannot resume from within a batch,
 * because an early change may carry a late state. At the end of a batch the watcher's set is as of that moment. So only the
 * last part of a batch has `completeTo`.
 */
export class NewestChanges implements WaitingChanges {
  readonly #limit: number;
  /** Merged changes by the agents' rows, in the order of their first changes. */
  #merged = new Map<bigint, WatchedChange>();
  /** The changes of the last delivery. */
  #arrived: WatchedChange[] = [];
  #delivery = 0n;
  #pageUnderWay = false;
  /** The batch that is being sent, backwards, and the position that its end completes. */
  #batch: WatchedChange[] = [];
  #batchPosition = 0n;

  /** `limit`: the greatest number of changes that wait, merged ones counted once. */
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

  take(limit: number, position: bigint): ChangeBatch | undefined {
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
    return { changes, completeTo: this.#batch.length === 0 ? this.#batchPosition : undefined };
  }

  beginPage(): void {
    // All of these changes are older than the page will be.
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

  /** Whether the change can be merged into one that waits. */
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
