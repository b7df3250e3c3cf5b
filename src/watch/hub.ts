import type { Transition } from "../domain/agent.ts";
import type { Refusal } from "../domain/errors.ts";
import { revisionCompacted } from "../storage/refusals.ts";
import { isInGap, type RevisionGap } from "../storage/transition-log.ts";
import type { FeedListener } from "./change-feed.ts";
import { Ring } from "./ring.ts";
import { draining, starting } from "./watch-refusals.ts";
import type { Watcher } from "./watcher.ts";
import { WatcherIndex } from "./watcher-index.ts";

/**
 * Transitions kept in memory for watchers that resume, with their encoded form: about 35 MB, and the last twenty seconds at
 * a thousand transitions a second.
 */
export const RING_CAPACITY = 20_000;

/** Hands the transitions that the feed reads to the watchers. Never waits for a watcher. */
export class Hub implements FeedListener {
  readonly #ring: Ring;
  /** The watchers that follow the feed. The others still read the past. */
  readonly #following = new WatcherIndex();
  /** The watchers that have read further than the feed, and the positions that they wait for. */
  readonly #awaiting = new Map<Watcher, bigint>();
  readonly #watchers = new Set<Watcher>();
  #position: bigint | undefined;
  /** The revision gaps that the feed has passed, as long as a watcher may resume from before them. */
  #gaps: readonly RevisionGap[] = [];
  /** No watcher may resume from before it, even if memory reaches back so far: all replicas answer alike. */
  #oldest = 0n;
  #draining = false;

  constructor(ringCapacity = RING_CAPACITY) {
    this.#ring = new Ring(ringCapacity);
  }

  /**
   * Everything up to it is in the queues of the watchers that follow.
   *
   * @throws Refusal DATABASE_UNAVAILABLE before the feed has started
   */
  get position(): bigint {
    if (this.#position === undefined) throw starting();
    return this.#position;
  }

  /** The number of open watches. */
  get size(): number {
    return this.#watchers.size;
  }

  onTransitions(transitions: readonly Transition[], position: bigint): void {
    this.#position = position;
    for (const transition of transitions) {
      if (transition.revision > this.#ring.start) this.#ring.push(transition);
      this.#following.forEach(transition, (watcher) => {
        if (!watcher.offer(transition, position)) this.#following.delete(watcher);
      });
    }
    for (const [watcher, awaited] of this.#awaiting) {
      if (position >= awaited) watcher.wake();
    }
  }

  onGap(gap: RevisionGap): void {
    this.#gaps = [...this.#gaps, gap];
    // Only the database knows which revisions before the gap are lost.
    this.#ring.reset(gap.to);
  }

  onCompacted(oldest: bigint): void {
    this.#oldest = oldest;
    this.#gaps = this.#gaps.filter(({ to }) => to > oldest);
  }

  onRestart(position: bigint): void {
    this.#position = position;
    this.#ring.reset(position);
    this.#endAll(() => revisionCompacted(position));
  }

  /**
   * Adds a watcher, which ends when all watches end.
   *
   * @throws Refusal DRAINING, DATABASE_UNAVAILABLE
   */
  add(watcher: Watcher): void {
    if (this.#draining) throw draining();
    if (this.#position === undefined) throw starting();
    this.#watchers.add(watcher);
  }

  /** From now on the hub offers the watcher everything after its position. */
  follow(watcher: Watcher): void {
    if (this.#watchers.has(watcher)) this.#following.add(watcher);
  }

  /** Wakes the watcher when the feed has reached `position`; undefined: cancels that. */
  awaitPosition(watcher: Watcher, position: bigint | undefined): void {
    if (position === undefined) this.#awaiting.delete(watcher);
    else this.#awaiting.set(watcher, position);
  }

  /**
   * Whether the feed has reached a revision that a watcher has read.
   *
   * @throws Refusal REVISION_COMPACTED when the revision belongs to a history that is lost
   */
  hasReached(revision: bigint): boolean {
    if (isInGap(revision, this.#gaps)) throw revisionCompacted(this.position);
    return this.position >= revision;
  }

  remove(watcher: Watcher): void {
    this.#watchers.delete(watcher);
    this.#following.delete(watcher);
    this.#awaiting.delete(watcher);
  }

  /**
   * The next transitions after a revision, up to the hub's position, from memory. Undefined when memory does not reach
   * back to the revision, the feed has not reached it, or it may be lost or removed. Then only the database knows.
   */
  recall(revision: bigint, limit: number): readonly Transition[] | undefined {
    if (revision > this.position || revision < this.#oldest) return undefined;
    return this.#ring.from(revision, limit);
  }

  /** Ends all watches, and rejects new ones. */
  drain(): void {
    this.#draining = true;
    this.#endAll(draining);
  }

  #endAll(refusal: () => Refusal): void {
    for (const watcher of this.#watchers) watcher.end(refusal());
    this.#following.clear();
  }
}
