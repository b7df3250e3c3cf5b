import type { Transition } from "../domain/agent.ts";
import type { Refusal } from "../domain/errors.ts";
import { type AgentPredicate, changeType, predicateOf } from "../domain/filter.ts";
import type { WatchedChange, WatchMessage, WatchMessageParts, WatchQuery } from "../domain/watch-message.ts";
import { BookmarkTimer } from "./bookmark-timer.ts";
import { NewestChanges } from "./newest-changes.ts";
import type { SnapshotProgress } from "./snapshot-progress.ts";
import { EveryChange, type WaitingChanges } from "./waiting-changes.ts";
import { watcherTooSlow } from "./watch-refusals.ts";

/**
 * Changes that wait for one watcher at most. All watchers and the ring share the transitions themselves, so a full queue
 * costs less than a megabyte. Only a queue that outlives the ring, of a reader that stands still, keeps transitions of its
 * own: 20 MB at most.
 */
export const QUEUE_LIMIT = 10_000;
/** Changes in one message at most. */
export const MESSAGE_CHANGES = 1_000;

type WatcherState =
  /** Takes what the hub offers. */
  | { readonly name: "taking" }
  /** Dropped changes for lack of room. It reads them again, from the log. */
  | { readonly name: "behind" }
  | { readonly name: "ended"; readonly refusal: Refusal };

const TAKING: WatcherState = { name: "taking" };
const BEHIND: WatcherState = { name: "behind" };

/** One watch: the queue between the hub, which never waits, and the stream, which waits for its reader. */
export class Watcher {
  readonly query: WatchQuery;
  /** Identifies the connection: reads of one connection wait for each other. */
  readonly connection: object;
  readonly #passes: AgentPredicate;
  readonly #signal: AbortSignal;
  readonly #queueLimit: number;
  readonly #waiting: WaitingChanges;
  readonly #bookmarks: BookmarkTimer;
  /** By `performance.now()`. */
  readonly #endsAt: number;
  #state: WatcherState = TAKING;
  /** Set until the snapshot is complete. */
  #snapshot: SnapshotProgress | undefined;
  /** Whether a client can resume from the last message: not from within a batch of merged changes. */
  #isResumable = true;
  /** Everything up to it was sent, or was there before the watch began. */
  #position = 0n;
  /** The revision of the last message: a client that received it resumes from there. */
  #sentRevision: bigint;
  #endWait: (() => void) | undefined;
  readonly #wake = () => this.#endWait?.();

  /**
   * @param signal ends the watch when it is aborted
   * @param queueLimit changes that wait at most
   * @param maxAgeMs how old the watch gets, give or take a quarter, in milliseconds
   * @param connection identifies the connection; default: the watch has one of its own
   */
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
    this.#bookmarks = new BookmarkTimer(query.bookmarkMs);
    this.#sentRevision = query.afterRevision ?? 0n;
    signal.addEventListener("abort", this.#wake);
  }

  // ------------------------------------------------------------------ the hub's side

  /**
   * Takes a transition from the log; `delivery` is the feed's position after the read that brought it. Returns false when
   * the watcher takes no more, because it has ended or has to catch up from the log.
   */
  offer(transition: Transition, delivery: bigint): boolean {
    if (this.#state.name !== "taking") return false;
    if (this.#snapshot?.keeps(transition.id) === false) return true;
    const change = this.changeOf(transition);
    if (change === undefined) return true;
    if (!this.#waiting.push(change, delivery)) {
      if (this.query.conflate) this.#fallBehind();
      else this.end(watcherTooSlow(this.#sentRevision));
      return false;
    }
    this.#wake();
    return true;
  }

  /** Ends a wait: the feed has reached the position that the watcher waits for. */
  wake(): void {
    this.#wake();
  }

  /** Ends the watch with an error, and drops the changes that wait. Later calls have no effect. */
  end(refusal: Refusal): void {
    if (this.#state.name !== "ended") this.#state = { name: "ended", refusal };
    this.#waiting.forget();
    this.#wake();
  }

  /** Bounds memory where very many agents change and the client does not read. The log has what is dropped. */
  #fallBehind(): void {
    this.#state = BEHIND;
    this.#waiting.forget();
    this.#wake();
  }

  // ---------------------------------------------------------------- the stream's side

  /**
   * False when the caller is gone.
   *
   * @throws Refusal the one that ended the watch
   */
  isOpen(): boolean {
    if (this.#signal.aborted) return false;
    if (this.#state.name === "ended") throw this.#state.refusal;
    return true;
  }

  /** Whether any message was sent. */
  get hasSent(): boolean {
    return this.#bookmarks.hasSent;
  }

  /** Waits until something may have happened, the next bookmark is due, or it is `until` (by `performance.now()`). */
  wait(until: number): Promise<void> {
    return new Promise((resolve) => {
      const wakeAt = Math.min(this.#bookmarks.dueAt, until);
      const timer = setTimeout(() => this.#wake(), Math.max(0, wakeAt - performance.now()));
      this.#endWait = () => {
        clearTimeout(timer);
        this.#endWait = undefined;
        resolve();
      };
    });
  }

  /** Ends a wait when a promise settles. */
  wakeAfter(promise: Promise<unknown>): void {
    promise.then(this.#wake, this.#wake);
  }

  /** When the watch reaches its maximum age, by `performance.now()`. */
  get endsAt(): number {
    return this.#endsAt;
  }

  /** Whether the watch has reached its maximum age. */
  get isOld(): boolean {
    return performance.now() >= this.#endsAt;
  }

  /**
   * Whether the watch ends by its age now: the client can resume from the last message, and the watch made progress or has
   * nothing to send. A client that needs longer than that to catch up would resume from the same place again and again.
   */
  get mayEnd(): boolean {
    if (!this.#isResumable || !this.isOld) return false;
    return !this.hasChanges || this.#position > (this.query.afterRevision ?? 0n);
  }

  /** The transition as this watcher sees it; undefined when it passes outside the filter. */
  changeOf(transition: Transition): WatchedChange | undefined {
    const type = changeType(transition, this.#passes);
    return type === undefined ? undefined : { type, transition, conflated: 0 };
  }

  /** Everything up to `revision` was sent, or does not pass the filter. */
  advance(revision: bigint): void {
    if (revision > this.#position) this.#position = revision;
  }

  /** Everything up to it was sent. */
  get position(): bigint {
    return this.#position;
  }

  /** Whether so many more changes can wait before the watcher has to send some. */
  hasRoomFor(changes: number): boolean {
    if (this.#waiting.size + changes > this.#queueLimit) this.#waiting.shrink();
    return this.#waiting.size + changes <= this.#queueLimit;
  }

  /** Whether changes wait to be sent. */
  get hasChanges(): boolean {
    return this.#waiting.size > 0;
  }

  /** Whether only the log has the next change. */
  get isBehind(): boolean {
    return this.#state.name === "behind" && !this.hasChanges;
  }

  /** Takes offers again. Returns whether the watcher dropped changes that came after `position`. */
  rejoin(): boolean {
    const wasBehind = this.#state.name === "behind";
    if (wasBehind) this.#state = TAKING;
    return wasBehind;
  }

  /** The next message of a watch to which everything up to `position` was offered. Undefined: there is none now. */
  next(position: bigint): WatchMessage | undefined {
    const batch = this.#waiting.take(MESSAGE_CHANGES, position);
    if (batch === undefined) {
      if (this.#state.name !== "behind") this.advance(position);
      return this.dueBookmark();
    }
    const { changes, completeTo } = batch;
    this.#isResumable = completeTo !== undefined;
    if (completeTo !== undefined) this.advance(completeTo);
    return this.message({ changes });
  }

  /** A bookmark, if one is due. */
  dueBookmark(): WatchMessage | undefined {
    return this.#isBookmarkDue() ? this.message({}) : undefined;
  }

  /** If nothing was sent yet, a bookmark is due in `ms` milliseconds. Infinity: until the next call there may be no stream. */
  scheduleFirstMessage(ms: number): void {
    this.#bookmarks.scheduleFirst(ms);
  }

  /**
   * A message at the watcher's position. It carries a bookmark whenever one is due.
   *
   * @throws Refusal the one that ended the watch: it dropped changes, so a client must not resume from this position
   */
  message(parts: WatchMessageParts): WatchMessage {
    if (this.#state.name === "ended") throw this.#state.refusal;
    const bookmark = parts.bookmark ?? (this.#isBookmarkDue() ? { snapshotComplete: false } : undefined);
    this.#bookmarks.onSent(bookmark !== undefined);
    const revision = this.#snapshot === undefined ? this.#position : 0n;
    this.#sentRevision = revision;
    return { revision, snapshotAgents: parts.snapshotAgents ?? [], changes: parts.changes ?? [], bookmark };
  }

  close(): void {
    this.#signal.removeEventListener("abort", this.#wake);
    this.#waiting.forget();
    this.#wake();
  }

  /** Within a batch of merged changes, what was sent is as of no revision. */
  #isBookmarkDue(): boolean {
    return this.#isResumable && this.#bookmarks.isDue;
  }

  // ------------------------------------------------------------------- the snapshot

  beginSnapshot(progress: SnapshotProgress): void {
    this.#snapshot = progress;
  }

  /** Call before a page is read. */
  beginPage(): void {
    this.#waiting.beginPage();
  }

  /**
   * The changes to send before a page of `revision`: those up to it, of agents that earlier pages have shown. This page or
   * a later one shows the other changes up to it. Changes after it wait.
   */
  takeChangesBefore(revision: bigint, progress: SnapshotProgress): readonly WatchedChange[] {
    const older = this.#waiting.endPage(revision);
    this.advance(revision);
    return older.filter(({ transition }) => progress.covers(transition.id));
  }

  endSnapshot(): void {
    this.#snapshot = undefined;
  }
}
