import type { Transition } from "../domain/agent.ts";
import type { Refusal } from "../domain/errors.ts";
import { type AgentPredicate, changeType, predicateOf } from "../domain/filter.ts";
import type { WatchedChange, WatchMessage, WatchMessageParts, WatchQuery } from "../domain/watch-message.ts";
import { NewestChanges } from "./newest-changes.ts";
import type { SnapshotFront } from "./snapshot-front.ts";
import { EveryChange, type WaitingChanges } from "./waiting-changes.ts";
import { watcherTooSlow } from "./watch-errors.ts";

/**
 * Changes that wait for one watcher at most. The transitions themselves are shared by all watchers and the ring, so a
 * full queue costs under a megabyte; only one that outlives the ring (a reader that stands still) keeps transitions of
 * its own alive, twenty megabytes of them at most.
 */
export const QUEUE_LIMIT = 10_000;
/** Changes in one message at most. */
export const MESSAGE_CHANGES = 1_000;
/** When nothing else was said until then, a first bookmark says that the stream stands. In milliseconds. */
export const FIRST_MESSAGE_MS = 100;

/** One watch: the queue between the hub, which never waits, and the stream, which waits for its reader. */
export class Watcher {
  readonly query: WatchQuery;
  /** Stands for the connection that it came by: connections take turns. */
  readonly connection: object;
  readonly #passes: AgentPredicate;
  readonly #signal: AbortSignal;
  readonly #queueLimit: number;
  readonly #waiting: WaitingChanges;
  /** Of `performance.now()`. */
  readonly #endsAt: number;
  /** Changes were forgotten for lack of room: they have to be read again, from the log. */
  #behind = false;
  /** What was told so far is a place to resume from. */
  #whole = true;
  #front: SnapshotFront | undefined;
  /** Everything at or below it was told, or was there before the watch began. */
  #after = 0n;
  /** The revision of the last message: where to resume from for whoever got it. */
  #told: bigint;
  #spoken = false;
  #refusal: Refusal | undefined;
  /** Of `performance.now()`. */
  #bookmarkAt = performance.now() + FIRST_MESSAGE_MS;
  #resume: (() => void) | undefined;
  readonly #wake = () => this.#resume?.();

  /** `maxAgeMs`: how long until it has been open for long enough, give or take a quarter. */
  constructor(
    query: WatchQuery,
    signal: AbortSignal,
    queueLimit = QUEUE_LIMIT,
    maxAgeMs: number = Number.POSITIVE_INFINITY,
    connection: object = signal,
  ) {
    this.query = query;
    this.connection = connection;
    this.#passes = predicateOf(query.filter);
    this.#signal = signal;
    this.#queueLimit = queueLimit;
    this.#endsAt = performance.now() + maxAgeMs * (0.75 + Math.random() / 2);
    this.#waiting = query.conflate ? new NewestChanges(queueLimit) : new EveryChange(queueLimit);
    this.#told = query.afterRevision ?? 0n;
    signal.addEventListener("abort", this.#wake);
  }

  // ------------------------------------------------------------------ the hub's side

  /**
   * A transition that was read; `delivery`: how far the log was read with it. Returns false when the watcher takes no more,
   * be it that it has ended or that it has to catch up from the log.
   */
  offer(transition: Transition, delivery: bigint): boolean {
    if (this.#refusal !== undefined || this.#behind) return false;
    if (this.#front?.keeps(transition.id) === false) return true;
    const change = this.changeOf(transition);
    if (change === undefined) return true;
    if (!this.#waiting.push(change, delivery)) {
      if (this.query.conflate) this.#fallBehind();
      else this.end(watcherTooSlow(this.#told));
      return false;
    }
    this.#wake();
    return true;
  }

  /** The feed has come to the position that was awaited. */
  wake(): void {
    this.#wake();
  }

  /** Ends the watch with an error; what waits in the queue is forgotten. The first word counts. */
  end(refusal: Refusal): void {
    this.#refusal ??= refusal;
    this.#waiting.forget();
    this.#wake();
  }

  /** Memory is bounded also where a great many agents change while nobody reads: what has no room is in the log. */
  #fallBehind(): void {
    this.#behind = true;
    this.#waiting.forget();
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
  wait(until: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#wake(), Math.max(0, Math.min(this.#bookmarkAt, until) - performance.now()));
      this.#resume = () => {
        clearTimeout(timer);
        this.#resume = undefined;
        resolve();
      };
    });
  }

  /** When it will have been open for long enough, of `performance.now()`. */
  get endsAt(): number {
    return this.#endsAt;
  }

  /** Whether it has been open for long enough. */
  get isOld(): boolean {
    return performance.now() >= this.#endsAt;
  }

  /**
   * Whether it is old, and what it was told is a place to resume from. Not before it has got somewhere, where there is
   * something to tell: who needs longer than that to catch up would come back to the same place again and again.
   */
  get mayEnd(): boolean {
    if (!this.#whole || !this.isOld) return false;
    return !this.hasNews || this.#after > (this.query.afterRevision ?? 0n);
  }

  /** Ends a wait when a promise settles. */
  wakeAfter(promise: Promise<unknown>): void {
    promise.then(this.#wake, this.#wake);
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

  /** Everything up to it was told. */
  get after(): bigint {
    return this.#after;
  }

  /** Whether so many more changes can wait before something has to be told. */
  hasRoomFor(changes: number): boolean {
    if (this.#waiting.size + changes > this.#queueLimit) this.#waiting.shrink();
    return this.#waiting.size + changes <= this.#queueLimit;
  }

  /** Whether something waits to be told. */
  get hasNews(): boolean {
    return this.#waiting.size > 0;
  }

  /** Whether what comes next is in the log alone. */
  get isBehind(): boolean {
    return this.#behind && !this.hasNews;
  }

  /** From now on everything is offered again. Returns whether something was missed, of what came after `after`. */
  rejoin(): boolean {
    const behind = this.#behind;
    this.#behind = false;
    return behind;
  }

  /**
   * The next message of a watch to which everything up to `position` was offered. Undefined: nothing to say now.
   */
  next(position: bigint): WatchMessage | undefined {
    const telling = this.#waiting.take(MESSAGE_CHANGES, position);
    if (telling === undefined) {
      if (!this.#behind) this.advance(position);
      return this.dueBookmark();
    }
    const { changes, reached } = telling;
    this.#whole = reached !== undefined;
    if (reached !== undefined) this.advance(reached);
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

  /** The first message is not due for so long, in milliseconds: perhaps there will be no stream. */
  greetLater(ms: number): void {
    if (!this.#spoken) this.#bookmarkAt = performance.now() + ms;
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
    this.#waiting.forget();
    this.#wake();
  }

  /** Not in the midst of a batch of merged changes: what was told by then is as of no revision. */
  #isBookmarkDue(): boolean {
    return this.#whole && performance.now() >= this.#bookmarkAt;
  }

  // ------------------------------------------------------------------- the snapshot

  beginSnapshot(front: SnapshotFront): void {
    this.#front = front;
  }

  /** A page is about to be asked for. */
  beginPage(): void {
    this.#waiting.beginPage();
  }

  /**
   * What to tell before a page of `revision`: changes up to it of agents that earlier pages have shown. Others up to it
   * are in the page, or will be in a later one; what came after it stays for later.
   */
  takeNews(front: SnapshotFront, revision: bigint): readonly WatchedChange[] {
    const older = this.#waiting.endPage(revision);
    this.advance(revision);
    return older.filter(({ transition }) => front.covers(transition.id));
  }

  endSnapshot(): void {
    this.#front = undefined;
  }
}
