import type { Transition } from "../domain/agent.ts";
import { isTerminal, type Wake } from "../domain/wake.ts";
import type { WakeFollowing } from "../domain/wake-directory.ts";
import { wakeNotFound } from "../domain/wake-replies.ts";
import type { Database } from "../storage/database.ts";
import { retryRead } from "../storage/retries.ts";
import { readWakes } from "../storage/wake-facts.ts";
import type { FeedListener } from "./change-feed.ts";
import { draining, watchTooOld } from "./watch-refusals.ts";

/** The maximum age of a stream, give or take a quarter, in milliseconds. */
const MAX_AGE_MS = 1_800_000;

interface Follower {
  /** The row of the wake's agent; undefined until the wake was read. */
  agent: bigint | undefined;
  isStale: boolean;
  wake(): void;
}

/** The followers of wakes at one replica. The log says when a wake changed, and the database how. */
export class WakeFollowers implements WakeFollowing, FeedListener {
  readonly #database: Pick<Database, "feed">;
  readonly #maxAgeMs: number;
  readonly #followers = new Map<string, Set<Follower>>();
  #isDraining = false;

  constructor(database: Pick<Database, "feed">, maxAgeMs: number = MAX_AGE_MS) {
    this.#database = database;
    this.#maxAgeMs = maxAgeMs;
  }

  onTransitions(transitions: readonly Transition[]): void {
    if (this.#followers.size === 0) return;
    for (const { wake, cause, id } of transitions) {
      if (wake !== null) for (const follower of this.#followers.get(wake.wakeId) ?? []) notify(follower);
      // A deletion ends all wakes of its agent, and names one.
      if (cause === "deleted") this.#notifyAll((follower) => follower.agent === id);
    }
  }

  onRestart(): void {
    this.#notifyAll(() => true);
  }

  onGap(): void {
    this.#notifyAll(() => true);
  }

  /** Ends all streams with DRAINING. */
  drain(): void {
    this.#isDraining = true;
    this.#notifyAll(() => true);
  }

  async *follow(wakeId: string, signal: AbortSignal): AsyncGenerator<Wake> {
    const follower: Follower = { agent: undefined, isStale: true, wake: () => undefined };
    const onAbort = (): void => follower.wake();
    const oldAt = performance.now() + this.#maxAgeMs * (0.75 + Math.random() / 2);
    this.#add(wakeId, follower);
    signal.addEventListener("abort", onAbort);
    try {
      let revision: bigint | undefined;
      while (!signal.aborted) {
        if (this.#isDraining) throw draining();
        if (performance.now() >= oldAt) throw watchTooOld();
        if (!follower.isStale) {
          await this.#wait(follower, oldAt - performance.now());
          continue;
        }
        // Before the read: a change during it is read once more.
        follower.isStale = false;
        const [wake] = await retryRead(() => readWakes(this.#database.feed, [wakeId]));
        if (wake === undefined) throw wakeNotFound(wakeId);
        follower.agent = wake.agent;
        if (wake.revision === revision) continue;
        revision = wake.revision;
        yield wake;
        if (isTerminal(wake.state)) return;
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#remove(wakeId, follower);
    }
  }

  #wait(follower: Follower, ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      follower.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #notifyAll(isMeant: (follower: Follower) => boolean): void {
    for (const followers of this.#followers.values())
      for (const follower of followers) if (isMeant(follower)) notify(follower);
  }

  #add(wakeId: string, follower: Follower): void {
    const followers = this.#followers.get(wakeId);
    if (followers === undefined) this.#followers.set(wakeId, new Set([follower]));
    else followers.add(follower);
  }

  #remove(wakeId: string, follower: Follower): void {
    const followers = this.#followers.get(wakeId);
    followers?.delete(follower);
    if (followers?.size === 0) this.#followers.delete(wakeId);
  }
}

function notify(follower: Follower): void {
  follower.isStale = true;
  follower.wake();
}
