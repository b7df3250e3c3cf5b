import type { Database } from "../storage/database.ts";
import type { WatchedLease } from "../storage/liveness.ts";
import { adoptAgents, forgetReplica, refreshReplica, retireReplica } from "../storage/replica-row.ts";
import { Chore } from "./chore.ts";
import type { Logger } from "./logger.ts";

/** How often a replica says that it lives. */
const REFRESH_MS = 1_000;
/** A replica that has not said so for this long is gone, and its agents are adopted. */
const STALE_MS = 5_000;

/** This replica among the others: says that it lives, and adopts the agents of those that no longer do. */
export class Membership {
  readonly #database: Database;
  readonly #replica: number;
  readonly #log: Logger;
  readonly #onAdopted: (leases: readonly WatchedLease[]) => void;
  readonly #refresh: Chore;
  #closing = false;

  constructor(options: {
    database: Database;
    replica: number;
    log: Logger;
    onAdopted(leases: readonly WatchedLease[]): void;
  }) {
    this.#database = options.database;
    this.#replica = options.replica;
    this.#log = options.log;
    this.#onAdopted = options.onAdopted;
    this.#refresh = new Chore({
      name: "say that this replica lives",
      everyMs: REFRESH_MS,
      log: options.log,
      run: () => this.#run(),
    });
  }

  start(): void {
    this.#refresh.start();
  }

  /** Leaves: the others may adopt this replica's agents at once. */
  async close(): Promise<void> {
    this.#closing = true;
    await this.#refresh.close();
    try {
      await retireReplica(this.#database, this.#replica);
    } catch (error) {
      this.#log.debug({ err: error }, "cannot retire; the others will notice");
    }
  }

  async #run(): Promise<void> {
    for (const gone of await refreshReplica(this.#database, this.#replica, STALE_MS)) await this.#adopt(gone);
  }

  async #adopt(gone: number): Promise<void> {
    let adopted = 0;
    while (!this.#closing) {
      const leases = await adoptAgents(this.#database, this.#replica, gone);
      this.#onAdopted(leases);
      adopted += leases.length;
      if (leases.length === 0) break;
    }
    if (adopted > 0) this.#log.info({ replica: gone, agents: adopted }, "adopted the agents of a replica that is gone");
    await forgetReplica(this.#database, gone, STALE_MS);
  }
}
