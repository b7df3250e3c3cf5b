import type { Logger } from "../../common/logging/logger.ts";
import { PeriodicTask } from "../../common/scheduling/periodic-task.ts";
import type { Database } from "../storage/database.ts";
import { isLost } from "../storage/failures.ts";
import { recordConnections } from "../storage/incidents.ts";

/** How often new connections are recorded, in milliseconds. */
const RECORD_EVERY_MS = 1_000;
/** A unary heartbeat from the same address is recorded again after this time, in milliseconds. */
const UNARY_AGAIN_MS = 60_000;
/** The claws whose unary heartbeats are remembered. */
const MOST_REMEMBERED = 10_000;

/** Records the address of each claw's last connection, for the operators who look for a silent claw. Best effort. */
export class ClawPeers {
  readonly #record: PeriodicTask;
  #waiting = new Map<string, string>();
  readonly #unary = new Map<string, { readonly peer: string; readonly at: number }>();

  constructor({ database, log }: { database: Database; log: Logger }) {
    this.#record = new PeriodicTask({
      isLost,
      name: "record connections of claws",
      everyMs: RECORD_EVERY_MS,
      log,
      run: async () => {
        if (this.#waiting.size === 0) return;
        const peers = this.#waiting;
        this.#waiting = new Map();
        try {
          await recordConnections(database, peers);
        } catch (error) {
          for (const [claw, peer] of this.#waiting) peers.set(claw, peer);
          this.#waiting = peers;
          throw error;
        }
      },
    });
  }

  start(): void {
    this.#record.start();
  }

  async close(): Promise<void> {
    await this.#record.close();
  }

  /** A connection that the database may not have yet; undefined: ask the database. */
  newest(clawIdentifier: string): string | undefined {
    return this.#waiting.get(clawIdentifier);
  }

  /** A stream holds agents of a claw. Call once for each stream and claw. */
  onStream(clawIdentifier: string, peer: string): void {
    this.#waiting.set(clawIdentifier, peer);
  }

  /** A unary heartbeat of a claw. */
  onUnary(clawIdentifier: string, peer: string): void {
    const now = performance.now();
    const before = this.#unary.get(clawIdentifier);
    if (before?.peer === peer && now - before.at < UNARY_AGAIN_MS) return;
    if (this.#unary.size >= MOST_REMEMBERED) this.#unary.clear();
    this.#unary.set(clawIdentifier, { peer, at: now });
    this.#waiting.set(clawIdentifier, peer);
  }
}
