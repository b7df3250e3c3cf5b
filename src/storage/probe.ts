import type { Micros } from "../../common/contract/time.ts";
import type { Logger } from "../../common/logging/logger.ts";
import { HANDSHAKE_MS } from "./connections.ts";
import type { Database } from "./database.ts";
import { ConnectionTimeout, failureKind, isQueryTimeout, sqlStateOf } from "./failures.ts";
import type { DatabaseFaults } from "./faults.ts";

const PROBE_MS = 1_000;
/** A database that takes this long to return its time is slow, in milliseconds. */
const SLOW_MS = 2_000;
const CHECK_MS = 500;
/**
 * A database that let a query time out and has answered no other query for this long is unavailable, in milliseconds.
 */
const SILENT_MS = 5_000;
/** A database that rejects reads for this long is unavailable, in milliseconds. */
const REJECTING_MS = 5_000;

/** Reads the clock, and the tables that most calls read: a role may have lost its rights, or an index may be damaged. */
const ASK = "SELECT clock_timestamp() AS read_at, EXISTS (SELECT FROM agent_states WHERE id = 0) AS read";
/** Writes half a megabyte to a temporary file. It fails while the disk is full, and needs no privilege. */
const FILL =
  "SELECT set_config('work_mem', '64kB', true); SELECT count(*) FROM generate_series(1, 30000) n (n) WHERE n > 0";

/**
 * The result of the last probe.
 * - `available`: the database answers in time.
 * - `slow`: it is reachable but does not answer in time: it is overloaded, or this replica is.
 * - `unavailable`: it is unreachable, rejects this service, or has not answered for too long.
 */
export type DatabaseState = "available" | "slow" | "unavailable";

export interface DatabaseProbeOptions {
  readonly database: Database;
  /** Known faults of the database. Default: none. */
  readonly faults?: DatabaseFaults;
  /**
   * Called at each change of the state. The first state is `available`.
   *
   * @param error the cause, if there is one
   */
  onState(state: DatabaseState, error?: unknown): void;
  readonly log: Pick<Logger, "warn" | "info">;
}

/** Reads the database's clock each second, and derives the state of the database. */
export class DatabaseProbe {
  readonly #options: DatabaseProbeOptions;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #state: DatabaseState = "available";
  /** Since when the server rejects reads, of `performance.now()`. */
  #rejectingSince: number | undefined;
  #closed = false;

  constructor(options: DatabaseProbeOptions) {
    this.#options = options;
  }

  get state(): DatabaseState {
    return this.#state;
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
    const sentAt = performance.now();
    const watch = setInterval(() => {
      if (this.#isSilent()) this.#setState("unavailable");
      else if (this.#state === "available" && performance.now() - sentAt >= SLOW_MS) this.#setState("slow");
    }, CHECK_MS);
    try {
      await this.#ask();
      this.#rejectingSince = undefined;
      // After an outage, any answer counts, however slow.
      if (this.#state === "unavailable" || performance.now() - sentAt < SLOW_MS) this.#setState("available");
    } catch (error) {
      // Poll the sockets first: if the event loop was blocked, other responses may have arrived already.
      await new Promise((resolve) => setImmediate(resolve));
      await this.#judge(error);
    } finally {
      clearInterval(watch);
    }
    await this.#checkFaults();
    if (this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#running = this.#probe();
    }, PROBE_MS);
  }

  async #ask(): Promise<void> {
    const { database } = this.#options;
    const sentAt = performance.now();
    const { rows } = await database.feed.query<{ read_at: Micros }>(ASK);
    const [row] = rows;
    if (row !== undefined) database.clock.observe(row.read_at, sentAt);
  }

  /** A full disk ends when the database can write again. Calls may not tell, because a replica that is not ready gets none. */
  async #checkFaults(): Promise<void> {
    const { database, faults } = this.#options;
    // A failure is noted as the others are.
    if (faults?.has("53100") === true) await database.feed.query(FILL).catch(() => undefined);
    faults?.check();
  }

  async #judge(error: unknown): Promise<void> {
    let failure = error;
    if (isUnreachable(error) && this.#state !== "unavailable" && !this.#closed) {
      // A single connection may fail for reasons of its own: try a new one.
      try {
        await this.#ask();
        this.#rejectingSince = undefined;
        return;
      } catch (again) {
        failure = again;
      }
    }
    this.#rejectingSince = isRejection(failure) ? (this.#rejectingSince ?? performance.now()) : undefined;
    const rejectingMs = performance.now() - (this.#rejectingSince ?? performance.now());
    if (isUnreachable(failure) || rejectingMs >= REJECTING_MS || this.#isSilent() || this.#silentMs >= HANDSHAKE_MS)
      this.#setState("unavailable", failure);
    else if (this.#state === "available") this.#setState("slow", failure);
  }

  get #silentMs(): number {
    return performance.now() - this.#options.database.answeredAt;
  }

  #isSilent(): boolean {
    const { answeredAt, lastTimeoutAt } = this.#options.database;
    return lastTimeoutAt > answeredAt && this.#silentMs >= SILENT_MS;
  }

  #setState(state: DatabaseState, error?: unknown): void {
    if (state === this.#state || this.#closed) return;
    const { log, onState } = this.#options;
    const before = this.#state;
    this.#state = state;
    const facts = error === undefined ? {} : { err: error };
    if (state === "unavailable") log.warn({ event: "database.unavailable", ...facts }, "database is unavailable");
    else if (state === "slow") log.warn({ event: "database.slow", ...facts }, "database is slow to answer");
    else log.info({ event: "database.available", before }, "database answers in time again");
    onState(state, error);
  }
}

/**
 * Whether the failure means that the database is unreachable. A slow connection, a query timeout and a rejected
 * statement do not mean that.
 */
function isUnreachable(error: unknown): boolean {
  return failureKind(error) === "lost" && !(error instanceof ConnectionTimeout) && !isQueryTimeout(error);
}

/**
 * Whether the server answered that it does not serve reads. An overloaded server cancels statements, and a locked table lets
 * them wait: these do not count. A server without free connections does.
 */
function isRejection(error: unknown): boolean {
  const code = sqlStateOf(error);
  return code !== undefined && (failureKind(error) !== "contention" || code.startsWith("53"));
}
