import type { Micros } from "../contract/time.ts";
import { HANDSHAKE_MS } from "./connections.ts";
import type { Database } from "./database.ts";
import { ConnectionTimeout, failureKind, isQueryTimeout } from "./failures.ts";

const PROBE_MS = 1_000;
/** A database that takes so long to say what time it is makes everybody wait. */
const SLOW_MS = 2_000;
const LOOK_MS = 500;
/** A database that lets a query time out, and has answered no other one for so long, is away. */
const SILENT_MS = 5_000;

/**
 * What the probe last found.
 * - `here`: the database answers in time.
 * - `slow`: it is there, and does not answer in time: loaded, or this replica is.
 * - `away`: it cannot be reached, refuses this service, or has said nothing for too long.
 */
export type DatabaseState = "here" | "slow" | "away";

export interface DatabaseProbeOptions {
  readonly database: Database;
  /** Called at every change, with the state as it is now. `here` to begin with. */
  onState(state: DatabaseState): void;
  readonly log: { warn(facts: object, message: string): void; info(facts: object, message: string): void };
}

/** Asks the database each second whether it is there, and what time it has. */
export class DatabaseProbe {
  readonly #options: DatabaseProbeOptions;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #state: DatabaseState = "here";
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
      if (this.#isSilent()) this.#turn("away");
      else if (this.#state === "here" && performance.now() - sentAt >= SLOW_MS) this.#turn("slow");
    }, LOOK_MS);
    try {
      await this.#ask();
      // After an outage it is back, however long the answer took.
      if (this.#state === "away" || performance.now() - sentAt < SLOW_MS) this.#turn("here");
    } catch (error) {
      // After a look at the sockets: where the event loop was held up, other answers may be there already.
      await new Promise((resolve) => setImmediate(resolve));
      await this.#judge(error);
    } finally {
      clearInterval(watch);
    }
    if (this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#running = this.#probe();
    }, PROBE_MS);
  }

  async #ask(): Promise<void> {
    const { database } = this.#options;
    const sentAt = performance.now();
    const { rows } = await database.feed.query<{ read_at: Micros }>("SELECT clock_timestamp() AS read_at");
    const [row] = rows;
    if (row !== undefined) database.clock.observe(row.read_at, sentAt);
  }

  async #judge(error: unknown): Promise<void> {
    let failure = error;
    if (isAbsence(error) && this.#state !== "away" && !this.#closed) {
      // One connection may have been ended for reasons of its own: a new one tells.
      try {
        await this.#ask();
        return;
      } catch (again) {
        failure = again;
      }
    }
    if (isAbsence(failure) || this.#isSilent() || this.#silentMs >= HANDSHAKE_MS) this.#turn("away", failure);
    else if (this.#state === "here") this.#turn("slow", failure);
  }

  get #silentMs(): number {
    return performance.now() - this.#options.database.answeredAt;
  }

  #isSilent(): boolean {
    const { answeredAt, lastTimeoutAt } = this.#options.database;
    return lastTimeoutAt > answeredAt && this.#silentMs >= SILENT_MS;
  }

  #turn(state: DatabaseState, error?: unknown): void {
    if (state === this.#state || this.#closed) return;
    const { log, onState } = this.#options;
    const before = this.#state;
    this.#state = state;
    const facts = error === undefined ? {} : { err: error };
    if (state === "away") log.warn(facts, "the database is away");
    else if (state === "slow") log.warn(facts, "the database is slow to answer");
    else log.info({}, before === "away" ? "the database is back" : "the database answers in time again");
    onState(state);
  }
}

/**
 * Whether the failure says that there is no database to be reached. A connection that is slow to be made, a query that is
 * not answered in time, and a server that refuses a statement do not say that.
 */
function isAbsence(error: unknown): boolean {
  return failureKind(error) === "lost" && !(error instanceof ConnectionTimeout) && !isQueryTimeout(error);
}
