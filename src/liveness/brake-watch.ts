import type { Micros } from "../contract/time.ts";
import type { ExpiryBrake } from "../domain/directory.ts";
import { PeriodicTask } from "../scheduling/periodic-task.ts";
import type { Database } from "../storage/database.ts";
import { isLost } from "../storage/failures.ts";
import { checkBrake } from "../storage/fleet-state.ts";
import type { Logger } from "./logger.ts";

const LOOK_EVERY_MS = 1_000;
/** Of a database's core, while it is engaged: a very large fleet is looked at less often. */
const LOOK_SHARE = 0.1;

/**
 * Watches the brake on the ends of leases, which the database engages by itself where more than a fifth of the claws
 * fall silent within one lease. Raises the alarm, and releases the brake when the silence is over.
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
      name: "look at the brake",
      everyMs: LOOK_EVERY_MS,
      share: LOOK_SHARE,
      log: options.log,
      run: async () => {
        const { brake, releasedAt } = await checkBrake(options.database);
        this.#saw(brake);
        // Not by what was seen: a brake may be released, and engaged once more, between two looks.
        if (releasedAt === this.#releasedAt) return;
        this.#releasedAt = releasedAt;
        options.onReleased();
      },
    });
  }

  /** As it was a second ago, or some in a very large fleet. */
  get brake(): ExpiryBrake {
    return this.#brake;
  }

  start(): void {
    this.#look.start();
  }

  async close(): Promise<void> {
    await this.#look.close();
  }

  #saw(brake: ExpiryBrake): void {
    const before = this.#brake;
    this.#brake = brake;
    if (before.engagedAt === null && brake.engagedAt !== null) {
      const heldBack = Number(brake.heldBack);
      this.#log.error(
        { heldBack },
        "mass silence: many claws fell silent at once, so their agents go offline slowly; look for a fault of ours",
      );
    } else if (before.engagedAt !== null && brake.engagedAt === null) {
      this.#log.info({}, "the mass silence is over: leases end as usual");
    }
  }
}
