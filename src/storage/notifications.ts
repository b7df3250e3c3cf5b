import { randomBytes } from "node:crypto";
import type { Logger } from "../../common/logging/logger.ts";
import { Backoff } from "../../common/scheduling/backoff.ts";
import { newSocket } from "./connections.ts";
import type { Database } from "./database.ts";

/** Notifications stay within a database, so deployments that share a server do not wake each other. */
const CHANNEL = "harborforge_agents_transitions";
/** NOTIFY locks the whole server during its commit, so each replica sends at most fifty a second. */
const SHORTEST_INTERVAL_MS = 20;
const FIRST_RECONNECT_MS = 100;
const LONGEST_RECONNECT_MS = 5_000;
/** The interval of keepalive queries, in milliseconds: a dead connection looks like one without notifications. */
const KEEPALIVE_MS = 15_000;

export interface NotificationsOptions {
  readonly database: Pick<Database, "beats" | "newClient">;
  readonly log: Pick<Logger, "info" | "warn">;
  /** Another replica committed a transition, or may have done so while this one was not listening. */
  onHint(): void;
  readonly keepaliveMs?: number;
}

/**
 * Notifies other replicas of new transitions in the log. It is only a hint that shortens the wait for their next poll:
 * it may be late or lost. It is sent after the commit, in a transaction of its own.
 */
export class Notifications {
  readonly #database: Pick<Database, "beats" | "newClient">;
  readonly #log: NotificationsOptions["log"];
  readonly #onHint: () => void;
  readonly #keepaliveMs: number;
  readonly #backoff = new Backoff(FIRST_RECONNECT_MS, LONGEST_RECONNECT_MS);
  /** Marks notifications of this replica, which knows its own commits already. */
  readonly #own = randomBytes(6).toString("hex");
  #closed = false;
  #listening: Promise<void> | undefined;
  /** Ends the current wait of the listener. */
  #interrupt: () => void = () => undefined;
  #sentAt = Number.NEGATIVE_INFINITY;
  #due: NodeJS.Timeout | undefined;
  #sending: Promise<void> | undefined;

  constructor({ database, log, onHint, keepaliveMs = KEEPALIVE_MS }: NotificationsOptions) {
    this.#database = database;
    this.#log = log;
    this.#onHint = onHint;
    this.#keepaliveMs = keepaliveMs;
  }

  /** Listens until `close`, and reconnects when the connection fails. */
  start(): void {
    this.#listening ??= this.#listen();
  }

  /** Notifies the other replicas: at once, or after the shortest interval. Never fails. */
  notify(): void {
    if (this.#closed || this.#due !== undefined) return;
    const waitMs = this.#sentAt + SHORTEST_INTERVAL_MS - performance.now();
    if (waitMs <= 0 && this.#sending === undefined) {
      this.#send();
      return;
    }
    this.#due = setTimeout(
      () => {
        this.#due = undefined;
        if (this.#sending === undefined) this.#send();
        else this.notify();
      },
      Math.max(waitMs, 1),
    );
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#due);
    this.#interrupt();
    await Promise.all([this.#listening, this.#sending]);
  }

  #send(): void {
    this.#sentAt = performance.now();
    this.#sending = this.#database.beats
      .query("SELECT pg_notify($1, $2)", [CHANNEL, this.#own])
      .catch(() => undefined)
      .then(() => {
        this.#sentAt = performance.now();
        this.#sending = undefined;
      });
  }

  async #listen(): Promise<void> {
    let failed = false;
    while (!this.#closed) {
      const error = await this.#listenOnce(() => {
        if (failed)
          this.#log.info({ event: "notifications.resumed" }, "receiving notifications of other replicas again");
        failed = false;
        this.#backoff.reset();
        // Notifications may have been missed in between.
        this.#onHint();
      });
      if (this.#closed) return;
      if (!failed)
        this.#log.warn(
          { event: "notifications.lost", err: error },
          "lost notifications of other replicas, still polling",
        );
      failed = true;
      await this.#pause(this.#backoff.next());
    }
  }

  /**
   * Listens until the connection fails.
   *
   * @returns the reason
   */
  async #listenOnce(onListening: () => void): Promise<unknown> {
    // An own socket, so that the connection to a dead peer can be destroyed.
    const socket = newSocket();
    const client = this.#database.newClient("listen", { stream: () => socket });
    let keepalive: NodeJS.Timeout | undefined;
    try {
      return await new Promise<unknown>((resolve) => {
        this.#interrupt = () => resolve(undefined);
        if (this.#closed) resolve(undefined);
        client.on("error", resolve);
        client.on("end", () => resolve(new Error("the connection was closed")));
        client.on("notification", ({ payload }) => {
          if (payload !== this.#own) this.#onHint();
        });
        const begin = async () => {
          await client.connect();
          await client.query(`LISTEN ${CHANNEL}`);
          onListening();
          keepalive = setInterval(() => client.query("SELECT 1").catch(resolve), this.#keepaliveMs);
        };
        begin().catch(resolve);
      });
    } finally {
      clearInterval(keepalive);
      this.#interrupt = () => undefined;
      client.end().catch(() => undefined);
      socket.destroy();
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#interrupt = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
