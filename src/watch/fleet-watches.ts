import { FairSemaphore } from "../../common/scheduling/fair-semaphore.ts";
import type { Transition } from "../domain/agent.ts";
import type { ExpiryBrake, Fleet } from "../domain/directories.ts";
import type { AgentFilter } from "../domain/filter.ts";
import type { FleetWatchMessage, FleetWatchQuery } from "../domain/watch-message.ts";
import type { FeedListener } from "./change-feed.ts";
import { FleetWatch } from "./fleet-watch.ts";
import { draining, starting } from "./watch-refusals.ts";

export interface FleetWatchesOptions {
  /** Counts the agents that pass a filter, as of one revision. */
  readonly count: (filter: AgentFilter) => Promise<Fleet>;
  /** The brake as this replica knows it. Read often. */
  readonly brake: () => ExpiryBrake;
  /** The maximum age of a watch, give or take a quarter, in milliseconds. */
  readonly maxAgeMs: number;
  /** The shortest time between two messages, in milliseconds. Default 250 ms. */
  readonly messageEveryMs?: number;
  /** The shortest time between two counts of suspect agents, in milliseconds. Default 5 s. */
  readonly suspectsEveryMs?: number;
}

const MESSAGE_EVERY_MS = 250;
const SUSPECTS_EVERY_MS = 5_000;

/**
 * The watches of the fleet's counts. A watch counts all agents once, and then follows the transitions of the feed: it has no
 * queue, so a slow reader costs no memory.
 */
export class FleetWatches implements FeedListener {
  readonly #options: FleetWatchesOptions;
  readonly #watches = new Set<FleetWatch>();
  /** Counts scan all agents, so one watch after the other does it. */
  readonly #counts = new FairSemaphore(1);
  #position: bigint | undefined;
  #draining = false;

  constructor(options: FleetWatchesOptions) {
    this.#options = options;
  }

  /**
   * Ends when `signal` is aborted. `connection` identifies the connection: counts of one connection wait for each other.
   * Default: one of its own.
   *
   * @throws Refusal DRAINING (also by age); DATABASE_UNAVAILABLE only before the first message
   */
  async *watch(
    query: FleetWatchQuery,
    signal: AbortSignal,
    connection: object = signal,
  ): AsyncGenerator<FleetWatchMessage, void> {
    if (this.#draining) throw draining();
    if (this.#position === undefined) throw starting();
    const { count, brake, maxAgeMs } = this.#options;
    const watch = new FleetWatch({
      query,
      signal,
      position: this.#position,
      brake,
      maxAgeMs,
      messageEveryMs: this.#options.messageEveryMs ?? MESSAGE_EVERY_MS,
      suspectsEveryMs: this.#options.suspectsEveryMs ?? SUSPECTS_EVERY_MS,
      count: () =>
        this.#counts.pass(connection, async () => {
          // A caller may be gone by the time that its count may start.
          signal.throwIfAborted();
          return await count(query.filter);
        }),
    });
    this.#watches.add(watch);
    try {
      yield* watch.messages();
    } finally {
      this.#watches.delete(watch);
      watch.close();
    }
  }

  onTransitions(transitions: readonly Transition[], position: bigint): void {
    this.#position = position;
    for (const watch of this.#watches) watch.onTransitions(transitions, position);
  }

  onGap(): void {
    for (const watch of this.#watches) watch.countAgain();
  }

  onRestart(position: bigint): void {
    this.#position = position;
    for (const watch of this.#watches) watch.countAgain(position);
  }

  /** Ends all watches, and rejects new ones. */
  drain(): void {
    this.#draining = true;
    for (const watch of this.#watches) watch.end(draining());
  }
}
