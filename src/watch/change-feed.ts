import type { Logger } from "../../common/logging/logger.ts";
import { Backoff } from "../../common/scheduling/backoff.ts";
import type { Transition } from "../domain/agent.ts";
import { isInGap, type LogPage, type RevisionGap, type TransitionLog } from "../storage/transition-log.ts";

/** Transitions in one read. After a full page the next read starts without a pause. */
const PAGE = 1_000;
/** Pauses between polls: short after a transition, and longer with each poll that finds none. */
const SHORTEST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 250;
const PAUSE_GROWTH = 1.2;
/** At most two hundred polls a second, woken or not: commits that come faster share a poll. */
const SHORTEST_INTERVAL_MS = 5;
const FIRST_RETRY_MS = 50;
const LONGEST_RETRY_MS = 2_000;

export type FeedLog = Pick<Logger, "info" | "warn">;

/** Receives the log. Its exceptions are logged, and do not reach the feed or other listeners. */
export interface FeedListener {
  /**
   * New transitions in the order of revisions, each once. With them the listener has received everything up to `position`.
   * There are none when only the position moved.
   */
  onTransitions(transitions: readonly Transition[], position: bigint): void;
  /**
   * The next transitions begin after `position`, and transitions before it may be missing: the feed started, or a part of the
   * history was lost or removed before it was read. A listener that keeps state by transitions has to read it anew.
   */
  onRestart?(position: bigint): void;
  /** Transitions up to `oldest` are no longer kept. */
  onCompacted?(oldest: bigint): void;
  /** The feed is about to pass a revision gap. It has no transitions of it. */
  onGap?(gap: RevisionGap): void;
}

export interface ChangeFeedOptions {
  readonly source: Pick<TransitionLog, "newest" | "read" | "beginNewHistory">;
  readonly log: FeedLog;
}

/**
 * The one reader of the log in a replica. Polling finds transitions, and waking the feed only makes a poll sooner: a lost
 * notification costs a quarter of a second, and never a transition.
 */
export class ChangeFeed {
  readonly #source: Pick<TransitionLog, "newest" | "read" | "beginNewHistory">;
  readonly #log: FeedLog;
  readonly #listeners = new Set<FeedListener>();
  readonly #backoff = new Backoff(FIRST_RETRY_MS, LONGEST_RETRY_MS);
  #position: bigint | undefined;
  #oldest = 0n;
  #pauseMs = SHORTEST_PAUSE_MS;
  #readAt: number | undefined;
  #lag = 0n;
  #failing = false;
  #closed = false;
  #woken = false;
  #endPause: () => void = () => undefined;
  readonly #started = Promise.withResolvers<void>();
  #running: Promise<void> | undefined;

  constructor({ source, log }: ChangeFeedOptions) {
    this.#source = source;
    this.#log = log;
  }

  /** The listeners have received everything up to it. Undefined before the feed has started. */
  get position(): bigint | undefined {
    return this.#position;
  }

  /** When the log was last read, in unix milliseconds. Undefined: not yet. */
  get readAt(): number | undefined {
    return this.#readAt;
  }

  /** How far the last read was behind the newest revision. */
  get lagRevisions(): bigint {
    return this.#lag;
  }

  /** Reads from the present end of the log on. Resolves when that is known. Waits for a database that is away. */
  start(): Promise<void> {
    this.#running ??= this.#run();
    return this.#started.promise;
  }

  /** Polls at once, after a commit. Cheap enough to be called for every commit. */
  wake(): void {
    this.#woken = true;
    this.#endPause();
  }

  /** Listeners are called in the order of their subscriptions. Returns a function that ends this one. */
  subscribe(listener: FeedListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** `subscribe` for listeners that need only the transitions. */
  onTransitions(listener: (transitions: readonly Transition[]) => void): () => void {
    return this.subscribe({
      onTransitions: (transitions) => {
        if (transitions.length > 0) listener(transitions);
      },
    });
  }

  /** Resolves when the last read has ended. The feed calls no listener after that. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#endPause();
    await this.#running;
    // A caller of `start` may still wait.
    this.#started.resolve();
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      this.#woken = false;
      const again = await this.#poll();
      if (!again) await this.#pause(this.#failing ? this.#backoff.next() : this.#pauseMs);
    }
  }

  /** Returns whether there is more to read. */
  async #poll(): Promise<boolean> {
    try {
      const position = this.#position;
      if (position === undefined) {
        const newest = await this.#source.newest();
        if (!this.#closed) this.#restart(newest);
        this.#started.resolve();
        this.#worked();
        return false;
      }
      let page = await this.#source.read(position, PAGE);
      if (page.newest < position) {
        // An older state of the same server, such as a snapshot of a disk. Only this position shows it.
        await this.#source.beginNewHistory(position);
        page = await this.#source.read(position, PAGE);
      }
      this.#worked();
      if (!this.#closed) this.#take(page, position);
      return page.transitions.length >= PAGE;
    } catch (error) {
      if (!this.#failing)
        this.#log.warn({ event: "feed.unavailable", err: error }, "cannot read the log of transitions, watchers wait");
      this.#failing = true;
      return false;
    }
  }

  #worked(): void {
    if (this.#failing) this.#log.info({ event: "feed.resumed" }, "reading the log of transitions again");
    this.#failing = false;
    this.#readAt = Date.now();
    this.#backoff.reset();
  }

  #take(page: LogPage, position: bigint): void {
    const { transitions, newest, oldest, gaps } = page;
    if (oldest !== this.#oldest) {
      this.#oldest = oldest;
      this.#notify((listener) => listener.onCompacted?.(oldest));
    }
    const lost = isInGap(position, gaps);
    // The counter never decreases: this is another database, or an older state of the same one.
    if (lost || newest < position || oldest > position) {
      this.#log.warn(
        {
          event: "feed.history_changed",
          position: position.toString(),
          newest: newest.toString(),
          oldest: oldest.toString(),
          lost,
        },
        "the log of transitions does not continue the last read",
      );
      this.#restart(newest);
      return;
    }
    const last = transitions.at(-1);
    // Only a short page has everything up to the newest revision of its snapshot.
    const reached = last !== undefined && transitions.length >= PAGE ? last.revision : newest;
    this.#pauseMs = last === undefined ? Math.min(LONGEST_PAUSE_MS, this.#pauseMs * PAUSE_GROWTH) : SHORTEST_PAUSE_MS;
    this.#lag = newest - reached;
    if (reached === position) return;
    this.#position = reached;
    for (const gap of gaps) {
      // A full page may end before the gap.
      if (gap.to > reached) break;
      this.#log.info(
        { event: "feed.gap_passed", from: gap.from.toString(), to: gap.to.toString() },
        "passed a revision gap",
      );
      this.#notify((listener) => listener.onGap?.(gap));
    }
    this.#notify((listener) => listener.onTransitions(transitions, reached));
  }

  #restart(position: bigint): void {
    this.#position = position;
    this.#notify((listener) => listener.onRestart?.(position));
  }

  #notify(call: (listener: FeedListener) => void): void {
    for (const listener of this.#listeners) {
      try {
        call(listener);
      } catch (error) {
        this.#log.warn({ event: "feed.listener_failed", err: error }, "a listener of the change feed failed");
      }
    }
  }

  /** Ends early when woken, but not before the shortest interval between two polls. */
  async #pause(ms: number): Promise<void> {
    const begun = performance.now();
    if (!this.#woken && !this.#closed) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms);
        this.#endPause = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#endPause = () => undefined;
    }
    const restMs = SHORTEST_INTERVAL_MS - (performance.now() - begun);
    if (restMs > 0 && !this.#closed) await new Promise((resolve) => setTimeout(resolve, restMs));
  }
}
