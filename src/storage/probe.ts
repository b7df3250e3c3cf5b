import type { Micros } from "../domain/time.ts";
import type { Database } from "./database.ts";

const PROBE_MS = 1_000;

export interface DatabaseProbeOptions {
  readonly database: Database;
  onAway(): void;
  onBack(): void;
  readonly log: { warn(facts: object, message: string): void; info(facts: object, message: string): void };
}

/** Asks the database each second whether it is there, and what time it has. */
export class DatabaseProbe {
  readonly #options: DatabaseProbeOptions;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #away = false;
  #closed = false;

  constructor(options: DatabaseProbeOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running = this.#probe();
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  async #probe(): Promise<void> {
    const { database, log, onAway, onBack } = this.#options;
    try {
      const sentAt = performance.now();
      const { rows } = await database.feed.query<{ read_at: Micros }>("SELECT clock_timestamp() AS read_at");
      const [row] = rows;
      if (row !== undefined) database.clock.observe(row.read_at, sentAt);
      if (this.#away) {
        this.#away = false;
        log.info({}, "the database is back");
        onBack();
      }
    } catch (error) {
      if (!this.#away && !this.#closed) {
        this.#away = true;
        log.warn({ err: error }, "the database is away");
        onAway();
      }
    }
    if (this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#running = this.#probe();
    }, PROBE_MS);
  }
}
