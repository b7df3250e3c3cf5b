import type { Transition } from "../domain/agent.ts";
import type { Refusal } from "../domain/errors.ts";
import { type AgentPredicate, changeType, predicateOf } from "../domain/filter.ts";
import { watcherTooSlow } from "./refusals.ts";
import type { SnapshotFront } from "./snapshot-front.ts";
import type { WatchedChange, WatchMessage, WatchMessageParts, WatchQuery } from "./watch-message.ts";

/**
 * Changes that wait for one watcher at most. The transitions themselves are shared by all watchers and the ring, so a
 * full queue costs under a megabyte; only one that outlives the ring (a reader that stands still) keeps transitions of
 * its own alive, some ten megabytes of them.
 */
export const QUEUE_LIMIT = 10_000;
/** Changes in one message at most. */
export const MESSAGE_CHANGES = 1_000;
/** When nothing else was said until then, a first bookmark says that the stream stands. In milliseconds. */
const FIRST_MESSAGE_MS = 250;

/** One watch: the queue between the hub, which never waits, and the stream, which waits for its reader. */
export class Watcher {
  readonly query: WatchQuery;
  readonly #passes: AgentPredicate;
  readonly #signal: AbortSignal;
  readonly #queueLimit: number;
  #queue: WatchedChange[] = [];
  #front: SnapshotFront | undefined;
  /** Everything at or below it was told, or was there before the watch began. */
  #after = 0n;
  /** The revision of the last message: where to resume from for whoever got it. */
  #told: bigint;
  #spoken = false;
  #refusal: Refusal | undefined;
  /** Of `performance.now()`. */
  #bookmarkAt = performance.now() + FIRST_MESSAGE_MS;
  #awaited: bigint | undefined;
  #resume: (() => void) | undefined;
  readonly #wake = () => this.#resume?.();

  constructor(query: WatchQuery, signal: AbortSignal, queueLimit = QUEUE_LIMIT) {
    this.query = query;
    this.#passes = predicateOf(query.filter);
    this.#signal = signal;
    this.#queueLimit = queueLimit;
    this.#told = query.afterRevision ?? 0n;
    signal.addEventListener("abort", this.#wake);
  }

  // ------------------------------------------------------------------ the hub's side

  /** A transition that the feed has read. Returns false when the watcher has ended, and wants no more. */
  offer(transition: Transition): boolean {
    if (this.#refusal !== undefined) return false;
    if (this.#front?.keeps(transition.id) === false) return true;
    const change = this.changeOf(transition);
    if (change === undefined) return true;
    if (this.#queue.length >= this.#queueLimit) {
      this.end(watcherTooSlow(this.#told));
      return false;
    }
    this.#queue.push(change);
    this.#wake();
    return true;
  }

  /** The feed has come to `position`. */
  reach(position: bigint): void {
    if (this.#awaited !== undefined && position >= this.#awaited) this.#wake();
  }

  /** Ends the watch with an error; what waits in the queue is forgotten. The first word counts. */
  end(refusal: Refusal): void {
    this.#refusal ??= refusal;
    this.#queue = [];
    this.#wake();
  }

  // ---------------------------------------------------------------- the stream's side

  /** False when the caller is gone. Throws what ended the watch. */
  goesOn(): boolean {
    if (this.#signal.aborted) return false;
    if (this.#refusal !== undefined) throw this.#refusal;
    return true;
  }

  /** Whether anything was said yet. */
  get spoken(): boolean {
    return this.#spoken;
  }

  /** Waits until something may have happened, the next bookmark is due, or it is `until` (of `performance.now()`). */
  wait(until = Number.POSITIVE_INFINITY): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#wake(), Math.max(0, Math.min(this.#bookmarkAt, until) - performance.now()));
      this.#resume = () => {
        clearTimeout(timer);
        this.#resume = undefined;
        resolve();
      };
    });
  }

  /** Ends a wait when a promise settles. */
  wakeAfter(promise: Promise<unknown>): void {
    promise.then(this.#wake, this.#wake);
  }

  /** From now on waits end when the feed has come to `position`. */
  awaitPosition(position: bigint | undefined): void {
    this.#awaited = position;
  }

  /** The transition as this watcher sees it; undefined when it passes outside the filter. */
  changeOf(transition: Transition): WatchedChange | undefined {
    const type = changeType(transition, this.#passes);
    return type === undefined ? undefined : { type, transition, conflated: 0 };
  }

  /** Everything up to `revision` was told or is of no interest. */
  advance(revision: bigint): void {
    if (revision > this.#after) this.#after = revision;
  }

  /** The next message of a watch that is abreast of the feed, which is at `position`. Undefined: nothing to say now. */
  next(position: bigint): WatchMessage | undefined {
    if (this.#queue.length === 0) {
      this.advance(position);
      return this.dueBookmark();
    }
    const changes = this.#queue.splice(0, MESSAGE_CHANGES);
    const last = changes.at(-1);
    if (this.#queue.length === 0) this.advance(position);
    else if (last !== undefined) this.advance(last.transition.revision);
    return this.message({ changes });
  }

  /** A bookmark, if it is time for one. */
  dueBookmark(): WatchMessage | undefined {
    return this.#isBookmarkDue() ? this.message({}) : undefined;
  }

  /** The first message need not wait for anything else to say. */
  greet(): void {
    if (!this.#spoken) this.#bookmarkAt = performance.now();
  }

  /** A message as of here. It carries a bookmark when one is due, whatever else it says. */
  message(parts: WatchMessageParts): WatchMessage {
    const bookmark = parts.bookmark ?? (this.#isBookmarkDue() ? { snapshotComplete: false } : undefined);
    if (bookmark !== undefined || !this.#spoken) this.#bookmarkAt = performance.now() + this.query.bookmarkMs;
    this.#spoken = true;
    this.#told = this.#front === undefined ? this.#after : 0n;
    return { revision: this.#told, snapshotAgents: parts.snapshotAgents ?? [], changes: parts.changes ?? [], bookmark };
  }

  close(): void {
    this.#signal.removeEventListener("abort", this.#wake);
    this.#queue = [];
    this.#wake();
  }

  #isBookmarkDue(): boolean {
    return performance.now() >= this.#bookmarkAt;
  }

  // ------------------------------------------------------------------- the snapshot

  beginSnapshot(front: SnapshotFront): void {
    this.#front = front;
  }

  /**
   * What to tell before a page of `revision`: changes up to it of agents that earlier pages have shown. Others up to it
   * are in the page, or will be in a later one; what came after it stays for later.
   */
  takeNews(front: SnapshotFront, revision: bigint): readonly WatchedChange[] {
    const rest = this.#queue.findIndex(({ transition }) => transition.revision > revision);
    const older = this.#queue.splice(0, rest === -1 ? this.#queue.length : rest);
    this.advance(revision);
    return older.filter(({ transition }) => front.covers(transition.id));
  }

  endSnapshot(): void {
    this.#front = undefined;
  }
}
