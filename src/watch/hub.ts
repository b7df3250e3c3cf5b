import type { Transition } from "../domain/agent.ts";
import type { Refusal } from "../domain/errors.ts";
import { revisionCompacted } from "../storage/refusals.ts";
import { isInGap, type RevisionGap } from "../storage/transition-log.ts";
import type { FeedListener } from "./change-feed.ts";
import { Ring } from "./ring.ts";
import { draining, starting } from "./watch-errors.ts";
import type { Watcher } from "./watcher.ts";
import { WatcherIndex } from "./watcher-index.ts";

/**
 * Transitions kept in memory for watchers that come back, with what is made of them for the wire: some 35 MB, and at a
 * thousand transitions a second the last twenty seconds.
 */
export const RING_CAPACITY = 20_000;

/** Hands what the feed reads to the watchers. Never waits for any of them. */
export class Hub implements FeedListener {
  readonly #ring: Ring;
  /** Those that follow the feed; the rest are still reading what came before. */
  readonly #following = new WatcherIndex();
  /** Those that have read further than the feed, and where to. */
  readonly #awaiting = new Map<Watcher, bigint>();
  readonly #watchers = new Set<Watcher>();
  #position: bigint | undefined;
  /** The gaps that the feed has passed, as long as a watcher may resume from before them. */
  #gaps: readonly RevisionGap[] = [];
  /** Before it nobody may resume, also where memory reaches back so far: all replicas answer alike. */
  #oldest = 0n;
  #draining = false;

  constructor(ringCapacity = RING_CAPACITY) {
    this.#ring = new Ring(ringCapacity);
  }

  /** Everything up to it is in the queues of those who follow. */
  get position(): bigint {
    if (this.#position === undefined) throw starting();
    return this.#position;
  }

  /** How many watches are open. */
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
    // Of places before it, memory cannot tell which are lost: the database can.
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

  /** From now on the watcher is told when all watches end. */
  join(watcher: Watcher): void {
    if (this.#draining) throw draining();
    if (this.#position === undefined) throw starting();
    this.#watchers.add(watcher);
  }

  /** From now on the watcher is offered all that comes after the hub's position. */
  follow(watcher: Watcher): void {
    if (this.#watchers.has(watcher)) this.#following.add(watcher);
  }

  /** Wakes the watcher when the feed has come to `position`; undefined: no longer. */
  awaitPosition(watcher: Watcher, position: bigint | undefined): void {
    if (position === undefined) this.#awaiting.delete(watcher);
    else this.#awaiting.set(watcher, position);
  }

  /**
   * Whether the feed has come to a revision that somebody else has read.
   *
   * @throws Refusal REVISION_COMPACTED when it was of a history that is lost
   */
  hasReached(revision: bigint): boolean {
    if (isInGap(revision, this.#gaps)) throw revisionCompacted(this.position);
    return this.position >= revision;
  }

  leave(watcher: Watcher): void {
    this.#watchers.delete(watcher);
    this.#following.delete(watcher);
    this.#awaiting.delete(watcher);
  }

  /**
   * The next transitions after a revision, up to the hub's position, from memory. Undefined when memory does not reach
   * back to the revision, the feed has not reached it, or it may be lost or no longer kept: then the database knows.
   */
  recall(revision: bigint, limit: number): readonly Transition[] | undefined {
    if (revision > this.position || revision < this.#oldest) return undefined;
    return this.#ring.from(revision, limit);
  }

  /** Ends all watches, and refuses new ones. */
  drain(): void {
    this.#draining = true;
    this.#endAll(draining);
  }

  #endAll(refusal: () => Refusal): void {
    for (const watcher of this.#watchers) watcher.end(refusal());
    this.#following.clear();
  }
}
