import type { Micros } from "../../common/contract/time.ts";
import type { Logger } from "../../common/logging/logger.ts";
import { PeriodicTask } from "../../common/scheduling/periodic-task.ts";
import type { Database } from "../storage/database.ts";
import { isLost } from "../storage/failures.ts";
import type { TrackedLease } from "../storage/lease-queries.ts";
import {
  type AdoptedReplica,
  adoptedLeases,
  adoptedReplicas,
  adoptReplicas,
  type IsolationTimes,
  refreshReplica,
  retireReplica,
} from "../storage/replica-row.ts";
import type { Count } from "../telemetry/metrics/count.ts";
import type { Metrics } from "../telemetry/metrics/metrics.ts";

/** The longest interval at which a replica refreshes its row; a short heartbeat interval shortens it. In milliseconds. */
const LONGEST_REFRESH_MS = 1_000;
const SHORTEST_REFRESH_MS = 50;
/** How often a replica checks whether it can still write, in milliseconds. */
const LOOK_MS = 100;
/** A process that has not run for so long was suspended or blocked, and has not noticed yet what happened meanwhile. */
const OVERSLEPT_MS = 500;
/** The time in which such a process notices which streams have ended, in milliseconds. */
const AWAKENING_MS = 100;
/** A replica that is silent for longer is isolated, even if the heartbeat interval is longer. */
const MAX_ISOLATION_MS = 5_000;
const MIN_ISOLATION_MS = 200;
/** Beats that wait for this share of the time after which a replica is isolated are stuck. */
const MOST_STUCK_SHARE = 0.5;
/** How long agents have to reconnect after an isolation, in leases. */
const LEASES_OF_GRACE = 1;

/**
 * A replica counts as isolated after one interval of silence: every lease that is renewed in time lasts two more. Its agents
 * then have a whole lease to send a heartbeat.
 */
export function isolationTimesFor(pace: { readonly intervalMs: number; readonly leaseMs: number }): IsolationTimes {
  return {
    isolatedAfterMs: Math.round(Math.min(MAX_ISOLATION_MS, Math.max(MIN_ISOLATION_MS, pace.intervalMs))),
    graceMs: Math.round(pace.leaseMs * LEASES_OF_GRACE),
  };
}

export interface MembershipOptions {
  readonly database: Database;
  readonly replica: number;
  readonly log: Logger;
  readonly metrics: Metrics;
  isolationTimes(): IsolationTimes;
  /** For how many milliseconds this replica could not write heartbeats, although it may be able to write its own row. */
  stuckMs(): number;
  /** This replica watches these leases from now on. None expires before `noneBefore`. */
  onAdopted(leases: readonly TrackedLease[], noneBefore: Micros): void;
  /**
   * This replica cannot write any more. Called once for each outage.
   *
   * @param error of the last attempt; undefined if it has not ended
   */
  onCutOff(error: unknown): void;
  /** It can write again. */
  onBack(): void;
}

/** This replica among the others: refreshes its row, and adopts the agents of replicas that are gone. */
export class Membership {
  readonly #options: MembershipOptions;
  readonly #refresh: PeriodicTask;
  readonly #adoptions: Count;
  readonly #isolatedSeconds: Count;
  /** When the row was last refreshed, by `performance.now()`. */
  #refreshedAt = performance.now();
  /** The adopted replicas, each with its guard as of the reading of its leases. */
  readonly #adopted = new Map<number, Micros>();
  #following: Promise<void> | undefined;
  #watch: NodeJS.Timeout | undefined;
  #lookedAt = performance.now();
  #awakeFrom = 0;
  /** For how long this process has run since it last refreshed its row, in milliseconds. */
  #unheardMs = 0;
  /** Why the last refresh failed. */
  #failure: unknown;
  #cutOff = false;
  #closing = false;

  constructor(options: MembershipOptions) {
    this.#options = options;
    this.#adoptions = options.metrics.counter("harborforge_replica_adoptions_total");
    this.#isolatedSeconds = options.metrics.counter("harborforge_isolated_seconds_total");
    const everyMs = options.isolationTimes().isolatedAfterMs / 4;
    this.#refresh = new PeriodicTask({
      isLost,
      name: "refresh the row of this replica",
      everyMs: Math.min(LONGEST_REFRESH_MS, Math.max(SHORTEST_REFRESH_MS, everyMs)),
      log: options.log,
      run: () => this.#run(),
    });
  }

  start(): void {
    this.#lookedAt = performance.now();
    this.#refresh.start();
    this.#watch = setInterval(() => this.#checkWrites(), LOOK_MS);
  }

  /** Whether this replica could not write for so long that it counts as isolated: it rejects new streams. */
  get cutOff(): boolean {
    return this.#cutOff;
  }

  /**
   * False for 100 ms after this process was suspended. Until it has read the old messages in its sockets, it does not know
   * which streams have ended.
   */
  get awake(): boolean {
    const now = performance.now();
    return this.#watch === undefined || (now - this.#lookedAt < OVERSLEPT_MS && now >= this.#awakeFrom);
  }

  /** Whether this replica watches the leases of that replica's agents. */
  tracks(replica: number | null): boolean {
    return replica === this.#options.replica || (replica !== null && this.#adopted.has(replica));
  }

  /** Retires this replica: the others may adopt its agents at once. */
  async close(): Promise<void> {
    this.#closing = true;
    clearInterval(this.#watch);
    this.#watch = undefined;
    await this.#refresh.close();
    await this.#following;
    try {
      await retireReplica(this.#options.database, this.#options.replica);
    } catch (error) {
      this.#options.log.debug({ event: "replica.retire_failed", err: error }, "failed to retire this replica");
    }
  }

  async #run(): Promise<void> {
    const { database, replica, log, isolationTimes, stuckMs } = this.#options;
    // A replica that cannot write heartbeats renews no lease. It counts as isolated, even if this connection works.
    if (stuckMs() > isolationTimes().isolatedAfterMs * MOST_STUCK_SHARE) return;
    const isolated = await refreshReplica(database, replica, isolationTimes()).catch((error: unknown) => {
      this.#failure = error;
      throw error;
    });
    this.#failure = undefined;
    this.#unheardMs = 0;
    const refreshedAt = performance.now();
    if (isolated) this.#isolatedSeconds.add((refreshedAt - this.#refreshedAt) / 1_000);
    this.#refreshedAt = refreshedAt;
    if (this.#cutOff) {
      this.#cutOff = false;
      this.#options.onBack();
    }
    if (isolated)
      log.warn(
        { event: "replica.isolated", graceMs: isolationTimes().graceMs },
        "this replica was isolated, extending leases",
      );
    await adoptReplicas(database, replica, isolationTimes().graceMs);
    this.#follow();
  }

  /** Concurrent with the refresh: else a replica that adopts a large fleet would count as isolated meanwhile. */
  #follow(): void {
    this.#following ??= this.#followAdopted()
      .catch((error: unknown) => {
        this.#options.log.warn(
          { event: "replica.adoption_failed", err: error },
          "failed to adopt the agents of a replica, retrying",
        );
      })
      .finally(() => {
        this.#following = undefined;
      });
  }

  /** The database decides which replicas this one has adopted. A replica that returned is not among them any more. */
  async #followAdopted(): Promise<void> {
    const adopted = await adoptedReplicas(this.#options.database, this.#options.replica);
    const ids = new Set(adopted.map(({ id }) => id));
    for (const id of this.#adopted.keys()) if (!ids.has(id)) this.#adopted.delete(id);
    // Another guard: the replica returned, held agents and was adopted again meanwhile. Those agents are new here.
    for (const gone of adopted) if (this.#adopted.get(gone.id) !== gone.noLeaseEndsBefore) await this.#adopt(gone);
  }

  /** Independent of the refresh, which may itself be stuck. */
  #checkWrites(): void {
    const now = performance.now();
    // A process that did not run for a while refreshes its row at once: it need not drain its streams.
    this.#unheardMs += Math.min(now - this.#lookedAt, 2 * LOOK_MS);
    if (now - this.#lookedAt >= OVERSLEPT_MS) this.#awakeFrom = now + AWAKENING_MS;
    this.#lookedAt = now;
    if (this.#cutOff || this.#unheardMs < this.#options.isolationTimes().isolatedAfterMs) return;
    this.#cutOff = true;
    this.#options.onCutOff(this.#failure);
  }

  async #adopt({ id, noLeaseEndsBefore }: AdoptedReplica): Promise<void> {
    const { database, log, onAdopted } = this.#options;
    let agents = 0;
    let after = 0n;
    while (!this.#closing) {
      const leases = await adoptedLeases(database, id, after);
      const last = leases.at(-1);
      if (last === undefined) break;
      onAdopted(leases, noLeaseEndsBefore);
      agents += leases.length;
      after = last.id;
    }
    // Only now: a failure before makes the next run read the leases again.
    this.#adopted.set(id, noLeaseEndsBefore);
    // A replica that stopped in order has no agents.
    if (agents === 0) return;
    this.#adoptions.add();
    log.info({ event: "replica.adopted", replica: id, agents }, "adopted the agents of a replica that is gone");
  }
}
