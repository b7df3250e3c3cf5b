import type { Logger } from "../../common/logging/logger.ts";
import { PeriodicTask } from "../../common/scheduling/periodic-task.ts";
import { obstacleTo } from "../domain/wake-admission.ts";
import { offerWrite } from "../domain/wake-offer.ts";
import type { OfferLimits } from "../storage/change-group.ts";
import type { Committer } from "../storage/committer.ts";
import type { Database } from "../storage/database.ts";
import { isLost } from "../storage/failures.ts";
import { type OfferableWake, offerableWakes } from "../storage/wake-queries.ts";

/** How often a replica looks for queued wakes whose agents can be woken, in milliseconds. */
const LOOK_EVERY_MS = 200;
/** Of a core of the database: ten thousand agents that can be woken take it a tenth of a second. */
const LOOK_SHARE = 0.5;

/**
 * Offers the heads of the queues of agents that sessions of this replica hold. It polls: an agent becomes admissible by a
 * status, a session, the end of a pause or a freed limit, and no notification of these may be relied on.
 */
export class WakeQueue {
  readonly #database: Database;
  readonly #committer: Committer;
  readonly #replica: number;
  readonly #limits: OfferLimits;
  readonly #log: Logger;
  readonly #isAwake: () => boolean;
  readonly #look: PeriodicTask;

  constructor(options: {
    database: Database;
    committer: Committer;
    replica: number;
    limits: OfferLimits;
    log: Logger;
    /** False while this process may not be in touch with its claws. */
    isAwake(): boolean;
  }) {
    this.#database = options.database;
    this.#committer = options.committer;
    this.#replica = options.replica;
    this.#limits = options.limits;
    this.#log = options.log;
    this.#isAwake = () => options.isAwake();
    this.#look = new PeriodicTask({
      isLost,
      name: "offer queued wakes",
      everyMs: LOOK_EVERY_MS,
      share: LOOK_SHARE,
      log: options.log,
      run: () => this.#offerAll(),
    });
  }

  start(): void {
    this.#look.start();
  }

  async close(): Promise<void> {
    await this.#look.close();
  }

  async #offerAll(): Promise<void> {
    if (!this.#isAwake()) return;
    const found = await offerableWakes(this.#database, this.#replica, this.#limits);
    await Promise.all(found.map((wake) => this.#offer(wake)));
  }

  async #offer({ wakeId, agent: id, agentId }: OfferableWake): Promise<void> {
    try {
      await this.#committer.submit<void>({
        agentId,
        id,
        actor: "server",
        facts: { wakeIds: [wakeId], admission: true },
        judge: (agent, now, { wakes, admissions }) => {
          const done = { kind: "done", result: undefined } as const;
          const wake = wakes.get(wakeId)?.wake;
          const admission = agent && admissions.get(agent.id);
          if (agent === undefined || admission === undefined) return done;
          if (wake?.state !== "queued" || wake.agent !== agent.id || wake.expiresAt <= now) return done;
          if (obstacleTo(agent, admission, wake.id, now) !== undefined) return done;
          const from = { state: wake.state, offerRevision: wake.offerRevision };
          // Where a limit is reached, the next look tries again.
          return { kind: "write", write: offerWrite(agent, wake, from), result: () => undefined };
        },
      });
    } catch (error) {
      this.#log.warn({ event: "wake.offer_failed", err: error, agentId, wakeId }, "failed to offer a wake, retrying");
    }
  }
}
