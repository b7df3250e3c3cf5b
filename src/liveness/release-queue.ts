import type { Logger } from "../../common/logging/logger.ts";
import type { Database } from "../storage/database.ts";
import { releaseAgents } from "../storage/lease-queries.ts";

/** Releases of streams that end together share a statement. */
const DELAY_MS = 50;
/** Where all streams end together, one statement for all of their agents would take too long, and delay heartbeats. */
const LARGEST_BATCH = 1_000;

/** A hold that ends: the agent's row, and the epoch under which it was held. */
export interface Release {
  readonly id: bigint;
  readonly epoch: bigint;
}

/**
 * Releases the agents of closed streams in the database. Best effort: an agent that stays held is released when its lease
 * expires, or when another replica adopts it.
 */
export class ReleaseQueue {
  readonly #database: Database;
  readonly #log: Logger;
  #waiting: Release[] = [];
  #timer: NodeJS.Timeout | undefined;
  /** By `performance.now()`. */
  #deadline = Number.POSITIVE_INFINITY;
  #underway: Promise<void> = Promise.resolve();

  constructor(options: { readonly database: Database; readonly log: Logger }) {
    this.#database = options.database;
    this.#log = options.log;
  }

  add(releases: readonly Release[]): void {
    for (const { id, epoch } of releases) this.#waiting.push({ id, epoch });
    if (this.#waiting.length === 0) return;
    this.#timer ??= setTimeout(() => void this.#flush(), DELAY_MS);
  }

  /** Writes what waits, for about so many milliseconds at most. */
  async close(withinMs: number): Promise<void> {
    this.#deadline = performance.now() + withinMs;
    await this.#flush();
  }

  async #flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const releases = this.#waiting;
    this.#waiting = [];
    if (releases.length === 0) return;
    this.#underway = this.#underway
      .then(() => this.#release(releases))
      .catch((error: unknown) =>
        this.#log.debug({ event: "claim.release_failed", err: error }, "failed to release agents of closed streams"),
      );
    await this.#underway;
  }

  async #release(releases: readonly Release[]): Promise<void> {
    for (let first = 0; first < releases.length && performance.now() < this.#deadline; first += LARGEST_BATCH)
      await releaseAgents(this.#database, releases.slice(first, first + LARGEST_BATCH));
  }
}
