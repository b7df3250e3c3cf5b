import type { Micros } from "../contract/time.ts";
import { PeriodicTask } from "../scheduling/periodic-task.ts";
import type { Database } from "../storage/database.ts";
import { isLost } from "../storage/failures.ts";
import type { WatchedLease } from "../storage/lease-queries.ts";
import {
  type AdoptedReplica,
  adoptedLeases,
  adoptedReplicas,
  adoptReplicas,
  type IsolationTimes,
  refreshReplica,
  retireReplica,
} from "../storage/replica-row.ts";
import type { Logger } from "./logger.ts";

/** How often a replica says that it listens, where the heartbeat interval allows it to be so slow. */
const LONGEST_REFRESH_MS = 1_000;
const SHORTEST_REFRESH_MS = 50;
/** How often it is looked whether this replica can still write. */
const LOOK_MS = 100;
/** A process that has not run for so long was suspended or blocked: much may have happened that it has not seen yet. */
const OVERSLEPT_MS = 500;
/** How long it takes at most to see which streams have ended meanwhile. */
const AWAKENING_MS = 100;
/** A replica that is silent for longer is isolated, however long the interval is. */
const LONGEST_HEARING_MS = 5_000;
const SHORTEST_HEARING_MS = 200;
/** Beats that wait for so long, of the time after which a replica is isolated, are stuck. */
const MOST_STUCK_SHARE = 0.5;
/** How much longer than one lease nobody needs to reconnect. */
const LEASES_OF_GRACE = 1;

/**
 * When a replica counts as isolated: after one interval of silence, since every lease that is kept has two more. Its agents
 * then have a whole lease to be heard again.
 */
export function hearingFor(pace: { readonly intervalMs: number; readonly leaseMs: number }): IsolationTimes {
  return {
    isolatedAfterMs: Math.round(Math.min(LONGEST_HEARING_MS, Math.max(SHORTEST_HEARING_MS, pace.intervalMs))),
    graceMs: Math.round(pace.leaseMs * LEASES_OF_GRACE),
  };
}

export interface MembershipOptions {
  readonly database: Database;
  readonly replica: number;
  readonly log: Logger;
  hearing(): IsolationTimes;
  /** For how many milliseconds this replica has not been able to write what it heard, though it may write its own row. */
  stuckMs(): number;
  /** Leases that are this replica's to watch from now on; none ends before `noneBefore`. */
  onAdopted(leases: readonly WatchedLease[], noneBefore: Micros): void;
  /** This replica has not been able to write for a while: others may. Once for each time. */
  onCutOff(): void;
  /** It can write again. */
  onBack(): void;
}

/** This replica among the others: says that it listens, and watches over the agents of those that no longer do. */
export class Membership {
  readonly #options: MembershipOptions;
  readonly #refresh: PeriodicTask;
  /** The replicas whose agents' leases this one watches, each with its guard as it was when their leases were read. */
  readonly #adopted = new Map<number, Micros>();
  #following: Promise<void> | undefined;
  #watch: NodeJS.Timeout | undefined;
  #lookedAt = performance.now();
  #awakeFrom = 0;
  /** For how long this process has run, in milliseconds, since it last could say that it listens. */
  #unheardMs = 0;
  #cutOff = false;
  #closing = false;

  constructor(options: MembershipOptions) {
    this.#options = options;
    const everyMs = options.hearing().isolatedAfterMs / 4;
    this.#refresh = new PeriodicTask({
      isLost,
      name: "say that this replica listens",
      everyMs: Math.min(LONGEST_REFRESH_MS, Math.max(SHORTEST_REFRESH_MS, everyMs)),
      log: options.log,
      run: () => this.#run(),
    });
  }

  start(): void {
    this.#lookedAt = performance.now();
    this.#refresh.start();
    this.#watch = setInterval(() => this.#look(), LOOK_MS);
  }

  /** Whether this replica has not been able to write for so long that it counts as isolated: who comes now is not heard. */
  get cutOff(): boolean {
    return this.#cutOff;
  }

  /**
   * False for a moment after this process has not run for a while. What it finds then in its sockets is as old as that, and
   * the end of a stream comes after what was sent on it.
   */
  get awake(): boolean {
    const now = performance.now();
    return this.#watch === undefined || (now - this.#lookedAt < OVERSLEPT_MS && now >= this.#awakeFrom);
  }

  /** Whether this replica watches the leases of that one's agents. */
  watches(replica: number | null): boolean {
    return replica === this.#options.replica || (replica !== null && this.#adopted.has(replica));
  }

  /** Leaves: the others may watch over this replica's agents at once. */
  async close(): Promise<void> {
    this.#closing = true;
    clearInterval(this.#watch);
    this.#watch = undefined;
    await this.#refresh.close();
    await this.#following;
    try {
      await retireReplica(this.#options.database, this.#options.replica);
    } catch (error) {
      this.#options.log.debug({ err: error }, "cannot retire; the others will notice");
    }
  }

  async #run(): Promise<void> {
    const { database, replica, log, hearing, stuckMs } = this.#options;
    // What is heard and cannot be written helps no lease: as good as isolated, however well this connection does.
    if (stuckMs() > hearing().isolatedAfterMs * MOST_STUCK_SHARE) return;
    const isolated = await refreshReplica(database, replica, hearing());
    this.#unheardMs = 0;
    if (this.#cutOff) {
      this.#cutOff = false;
      this.#options.onBack();
    }
    if (isolated)
      log.warn(
        { graceMs: hearing().graceMs },
        "nobody listened here for a while: no lease ends until agents could be heard again",
      );
    await adoptReplicas(database, replica, hearing().graceMs);
    this.#follow();
  }

  /** Beside the refreshing: whoever takes over a large fleet would be isolated meanwhile. */
  #follow(): void {
    this.#following ??= this.#followAdopted()
      .catch((error: unknown) => {
        this.#options.log.warn({ err: error }, "cannot watch over the agents of a replica that is gone yet");
      })
      .finally(() => {
        this.#following = undefined;
      });
  }

  /** The database says whom this replica watches over: who woke up, or went to another one, is no longer among them. */
  async #followAdopted(): Promise<void> {
    const adopted = await adoptedReplicas(this.#options.database, this.#options.replica);
    const ids = new Set(adopted.map(({ id }) => id));
    for (const id of this.#adopted.keys()) if (!ids.has(id)) this.#adopted.delete(id);
    // Another guard: it returned, held agents and was adopted again between two looks. Those agents are new to this replica.
    for (const gone of adopted) if (this.#adopted.get(gone.id) !== gone.noLeaseEndsBefore) await this.#adopt(gone);
  }

  /** Apart from the refreshing, which may itself be stuck. */
  #look(): void {
    const now = performance.now();
    // A process that did not run for a while says that it listens as soon as it does: it need not send anybody away.
    this.#unheardMs += Math.min(now - this.#lookedAt, 2 * LOOK_MS);
    if (now - this.#lookedAt >= OVERSLEPT_MS) this.#awakeFrom = now + AWAKENING_MS;
    this.#lookedAt = now;
    if (this.#cutOff || this.#unheardMs < this.#options.hearing().isolatedAfterMs) return;
    this.#cutOff = true;
    this.#options.onCutOff();
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
    // Not before: what fails on the way is read again.
    this.#adopted.set(id, noLeaseEndsBefore);
    // A replica that stopped in order, as each does in the end, leaves nothing behind that is worth a line.
    if (agents > 0) log.info({ replica: id, agents }, "watches over the agents of a replica that is gone");
  }
}
