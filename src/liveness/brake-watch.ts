import type { Micros } from "../../common/contract/time.ts";
import type { Logger } from "../../common/logging/logger.ts";
import { PeriodicTask } from "../../common/scheduling/periodic-task.ts";
import type { ExpiryBrake } from "../domain/directories.ts";
import type { Database } from "../storage/database.ts";
import { isLost } from "../storage/failures.ts";
import { checkBrake } from "../storage/fleet-state.ts";

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
  #brake: ExpiryBrake = { engagedAt: null, heldBack: 0n };
  #releasedAt: Micros | null = null;

  constructor(options: { database: Database; log: Logger; onReleased: () => void }) {
    this.#log = options.log;
    this.#look = new PeriodicTask({
      isLost,
      name: "read the expiry brake",
      everyMs: LOOK_EVERY_MS,
      share: LOOK_SHARE,
      log: options.log,
      run: async () => {
        const { brake, releasedAt } = await checkBrake(options.database);
        this.#observe(brake);
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
  }

  #observe(brake: ExpiryBrake): void {
    const before = this.#brake;
    this.#brake = brake;
    if (before.engagedAt === null && brake.engagedAt !== null) {
      const heldBack = Number(brake.heldBack);
      this.#log.error({ event: "brake.engaged", heldBack }, "many claws fell silent, expiry is rate limited");
    } else if (before.engagedAt !== null && brake.engagedAt === null) {
      this.#log.info({ event: "brake.released" }, "the mass silence is over, leases expire as usual");
    }
  }
}
