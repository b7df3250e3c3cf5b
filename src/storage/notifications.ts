import { randomBytes } from "node:crypto";
import { Backoff } from "../scheduling/backoff.ts";
import { newSocket } from "./connections.ts";
import type { Database } from "./database.ts";

/** Notifications stay within a database, so deployments that share a server do not wake each other. */
const CHANNEL = "harborforge_agents_transitions";
/** NOTIFY takes a lock of the whole server for its commit, so there are at most fifty a second from each replica. */
const SHORTEST_INTERVAL_MS = 20;
const FIRST_RECONNECT_MS = 100;
const LONGEST_RECONNECT_MS = 5_000;
/** How often to ask whether the connection still answers: one that went silent looks like one without news. */
const KEEPALIVE_MS = 15_000;

export interface NotificationsLog {
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
}

export interface NotificationsOptions {
  readonly database: Pick<Database, "beats" | "newClient">;
  readonly log: NotificationsLog;
  /** Another replica committed something, or may have done so while nobody listened. */
  onHint(): void;
  readonly keepaliveMs?: number;
}

/**
 * Tells other replicas that there is something new in the log. Only a hint that saves them the wait for their next poll:
 * it may be late or lost, and is sent after the commit, in a transaction of its own.
 */
export class Notifications {
  readonly #database: Pick<Database, "beats" | "newClient">;
  readonly #log: NotificationsLog;
  readonly #onHint: () => void;
  readonly #keepaliveMs: number;
  readonly #backoff = new Backoff(FIRST_RECONNECT_MS, LONGEST_RECONNECT_MS);
  /** Marks what this replica sent: it knows of its own commits already. */
  readonly #own = randomBytes(6).toString("hex");
  #closed = false;
  #listening: Promise<void> | undefined;
  /** Ends what the listener waits for. */
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

  /** Begins to listen, and goes on until `close`, whatever happens to the connection. */
  start(): void {
    this.#listening ??= this.#listen();
  }

  /** Tells the others, at once if the last time is long enough ago, else soon. Never fails. */
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
        if (failed) this.#log.info({}, "listening to other replicas again");
        failed = false;
        this.#backoff.reset();
        // Whatever was said while nobody listened.
        this.#onHint();
      });
      if (this.#closed) return;
      if (!failed) this.#log.warn({ err: error }, "no notifications of other replicas for now; polling goes on");
      failed = true;
      await this.#pause(this.#backoff.next());
    }
  }

  /** Listens until the connection fails, and tells why it did. */
  async #listenOnce(onListening: () => void): Promise<unknown> {
    // A socket of ours: one whose peer went silent is not closed by politeness.
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
