import { type Micros, toRfc3339 } from "../../common/contract/time.ts";
import type { Logger } from "../../common/logging/logger.ts";
import { PeriodicTask } from "../../common/scheduling/periodic-task.ts";
import type { ExpiryBrake } from "../domain/directories.ts";
import type { Database } from "../storage/database.ts";
import { isLost } from "../storage/failures.ts";
import { checkBrake } from "../storage/fleet-state.ts";
import { countExpiries, readMassSilence } from "../storage/incidents.ts";

const LOOK_EVERY_MS = 1_000;
/** Of a database's core, while the brake is engaged: the brake of a very large fleet is read less often. */
const LOOK_SHARE = 0.1;

/**
 * Watches the brake, which rate limits the expiry of leases. The database engages it when more than a fifth of the claws fall
 * silent within one lease. Logs that, and releases the brake when the mass silence is over.
 */
export class BrakeWatch {
  readonly #look: PeriodicTask;
  readonly #log: Logger;
  readonly #database: Database;
  /** The most agents that it held back at a time since it engaged. */
  #mostHeldBack = 0;
  /** A release that is not logged yet. */
  #released: { readonly engagedAt: Micros; readonly lastedMs: number } | undefined;
  #brake: ExpiryBrake = { engagedAt: null, heldBack: 0n };
  #releasedAt: Micros | null = null;

  constructor(options: { database: Database; log: Logger; onReleased: () => void }) {
    this.#log = options.log;
    this.#database = options.database;
    this.#look = new PeriodicTask({
      isLost,
      name: "read the expiry brake",
      everyMs: LOOK_EVERY_MS,
      share: LOOK_SHARE,
      log: options.log,
      run: async () => {
        const { brake, releasedAt } = await checkBrake(options.database);
        await this.#observe(brake);
        // By its time: between two reads, a brake may be released and engaged again.
        if (releasedAt === this.#releasedAt) return;
        this.#releasedAt = releasedAt;
        options.onReleased();
      },
    });
  }

  /** The state at the last read: a second ago, or several in a very large fleet. */
  get brake(): ExpiryBrake {
    return this.#brake;
  }

  start(): void {
    this.#look.start();
  }

  async close(): Promise<void> {
    await this.#look.close();
    await this.#logRelease();
  }

  async #observe(brake: ExpiryBrake): Promise<void> {
    const before = this.#brake;
    await this.#logRelease();
    const heldBack = Number(brake.heldBack);
    if (before.engagedAt === null && brake.engagedAt !== null) {
      this.#mostHeldBack = heldBack;
      const facts = await this.#silence(brake.engagedAt);
      this.#log.error({ event: "brake.engaged", heldBack, ...facts }, "many claws fell silent, expiry is rate limited");
    } else if (before.engagedAt !== null && brake.engagedAt === null) {
      const lastedMs = Math.round((this.#database.clock.now() - before.engagedAt) / 1_000);
      this.#released = { engagedAt: before.engagedAt, lastedMs };
    } else this.#mostHeldBack = Math.max(this.#mostHeldBack, heldBack);
    // Last, so that the log is not behind the metrics.
    this.#brake = brake;
  }

  /** At the read after the release: by then the agents that it held back are offline, too, so the numbers are final. */
  async #logRelease(): Promise<void> {
    const released = this.#released;
    if (released === undefined) return;
    this.#released = undefined;
    const facts = await this.#silence(released.engagedAt);
    const agents = await countExpiries(this.#database, released.engagedAt).catch(() => undefined);
    const { lastedMs } = released;
    this.#log.info(
      { event: "brake.released", lastedMs, agents, mostHeldBack: this.#mostHeldBack, ...facts },
      "the mass silence is over, leases expire as usual",
    );
  }

  /** The facts of the claws that fell silent; empty if they cannot be read. */
  async #silence(engagedAt: Micros): Promise<Readonly<Record<string, unknown>>> {
    try {
      const { claws, named } = await readMassSilence(this.#database, engagedAt);
      const silent = named.map(({ incidentId, clawIdentifier, lastHeartbeat, peer }) => ({
        incidentId,
        clawIdentifier,
        lastHeartbeat: lastHeartbeat === null ? undefined : toRfc3339(lastHeartbeat),
        peer: peer ?? undefined,
      }));
      return { engagedAt: toRfc3339(engagedAt), claws, silent };
    } catch {
      return { engagedAt: toRfc3339(engagedAt) };
    }
  }
}
