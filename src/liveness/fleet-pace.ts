import type { Logger } from "../../common/logging/logger.ts";
import { PeriodicTask } from "../../common/scheduling/periodic-task.ts";
import {
  announcedIntervalMs,
  approachPace,
  firstIntervalMs,
  type Pace,
  type PaceLimits,
  paceFor,
} from "../domain/lease.ts";
import type { Database } from "../storage/database.ts";
import { isLost } from "../storage/failures.ts";
import { countFleet, type FleetTally, recordPace } from "../storage/fleet-state.ts";

const COUNT_EVERY_MS = 5_000;
/** Of a database's core: a very large fleet is counted less often. */
const COUNT_SHARE = 0.02;

/** The pace of the fleet. It follows the fleet's size, slowly enough that no agent is late that obeys an older pace. */
export class FleetPace {
  readonly #limits: PaceLimits;
  readonly #count: PeriodicTask;
  #pace: Pace;
  #tally: FleetTally | undefined;
  #grownAt = Number.NEGATIVE_INFINITY;
  readonly #firstCount = Promise.withResolvers<void>();
  #counted = false;

  constructor(options: { database: Database; limits: PaceLimits; log: Logger }) {
    this.#limits = options.limits;
    this.#pace = paceFor(0, options.limits);
    this.#count = new PeriodicTask({
      isLost,
      name: "count the fleet",
      everyMs: COUNT_EVERY_MS,
      share: COUNT_SHARE,
      log: options.log,
      run: () => this.#run(options.database),
    });
  }

  /** The pace in force, by which leases are granted. */
  get current(): Pace {
    return this.#pace;
  }

  /** The fleet as this replica last counted it, some seconds ago. Undefined: it has not counted it yet. */
  get tally(): FleetTally | undefined {
    return this.#tally;
  }

  /** The pace to announce, jittered. */
  announced(): Pace {
    return { intervalMs: announcedIntervalMs(this.#pace, Math.random()), leaseMs: this.#pace.leaseMs };
  }

  /** The interval to announce to a new stream until its second beat, in milliseconds. */
  first(): number {
    return firstIntervalMs(this.#pace, Math.random());
  }

  /** Resolves when the fleet has been counted, or cannot be. */
  start(): Promise<void> {
    this.#count.start();
    return this.#firstCount.promise;
  }

  async close(): Promise<void> {
    await this.#count.close();
  }

  async #run(database: Database): Promise<void> {
    const isFirst = !this.#counted;
    this.#counted = true;
    try {
      const { onlineAgents: agents, tally } = await countFleet(database);
      this.#tally = tally ?? this.#tally;
      // A new replica has not announced a pace yet, so it may take the pace of a large fleet at once.
      if (isFirst) this.#pace = paceFor(agents, this.#limits);
      else this.#adapt(agents);
      await recordPace(database, this.#pace);
    } finally {
      this.#firstCount.resolve();
    }
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
