import {
  announcedIntervalMs,
  approachPace,
  firstIntervalMs,
  type Pace,
  type PaceLimits,
  paceFor,
} from "../domain/lease.ts";
import type { Database } from "../storage/database.ts";
import { countFleet } from "../storage/fleet-state.ts";
import { Chore } from "./chore.ts";
import type { Logger } from "./logger.ts";

const COUNT_EVERY_MS = 5_000;
/** Of a database's core. A very large fleet is counted less often. */
const COUNT_SHARE = 0.02;

/** The pace of the fleet: follows its size, slowly enough that an agent that obeys an older pace is still in time. */
export class FleetPace {
  readonly #limits: PaceLimits;
  readonly #count: Chore;
  #pace: Pace;
  #grownAt = Number.NEGATIVE_INFINITY;

  constructor(options: { database: Database; limits: PaceLimits; log: Logger }) {
    this.#limits = options.limits;
    this.#pace = paceFor(0, options.limits);
    this.#count = new Chore({
      name: "count the agents that beat",
      everyMs: COUNT_EVERY_MS,
      share: COUNT_SHARE,
      log: options.log,
      run: async () => this.#adapt(await countFleet(options.database, this.#pace)),
    });
  }

  /** Grants are by it as it stands. */
  get current(): Pace {
    return this.#pace;
  }

  /** What to announce: jittered. */
  announced(): Pace {
    return { intervalMs: announcedIntervalMs(this.#pace, Math.random()), leaseMs: this.#pace.leaseMs };
  }

  /** What to announce to a new stream until its second beat, in milliseconds. */
  first(): number {
    return firstIntervalMs(this.#pace, Math.random());
  }

  start(): void {
    this.#count.start();
  }

  async close(): Promise<void> {
    await this.#count.close();
  }

  #adapt(liveAgents: number): void {
    const wanted = paceFor(liveAgents, this.#limits);
    const now = performance.now();
    const grows = wanted.intervalMs > this.#pace.intervalMs;
    if (grows && now - this.#grownAt < this.#pace.leaseMs) return;
    if (grows) this.#grownAt = now;
    this.#pace = approachPace(this.#pace, wanted);
  }
}
