import { Socket } from "node:net";
import pg from "pg";
import { Queue } from "../../common/scheduling/queue.ts";
import type { Tracing } from "../telemetry/tracing/tracing.ts";
import { ConnectionTimeout } from "./failures.ts";

/**
 * The timeout of a TCP connection in milliseconds. The kernel accepts it even on a loaded server, so a slower host is
 * unreachable.
 */
const TCP_MS = 3_000;
/**
 * The timeout from the TCP connection to the start of the session, in milliseconds. TLS and SCRAM take about ten round
 * trips, each of which needs a processor on both sides. The next caller starts a failed attempt again, so a limit that
 * is too short never succeeds under load.
 */
export const HANDSHAKE_MS = 30_000;
/**
 * How long a caller waits for a connection, in milliseconds. The connection attempt continues for the next caller. A
 * change waits at most twice, which is less than a call's deadline, so its caller gets the reason.
 */
export const CONNECTION_WAIT_MS = 4_000;

/** A socket with a timeout of its TCP connection. */
export function newSocket(): Socket {
  const socket = new Socket();
  socket.once("connectionAttempt", (address, port) => {
    const timeOut = (): void => {
      if (!socket.connecting) return;
      socket.destroy(Object.assign(new Error(`connect ETIMEDOUT ${address}:${port}`), { code: "ETIMEDOUT" }));
    };
    // Poll the sockets first: if the event loop was blocked, the response may have arrived already.
    const timer = setTimeout(() => setImmediate(timeOut), TCP_MS);
    socket.once("connect", () => clearTimeout(timer));
    socket.once("close", () => clearTimeout(timer));
  });
  return socket;
}

type ConnectCallback = (
  error: Error | undefined,
  client: pg.PoolClient | undefined,
  release: (release?: Error | boolean) => void,
) => void;

interface Waiter {
  readonly callback: ConnectCallback;
  readonly timer: NodeJS.Timeout;
  isGone: boolean;
}

/**
 * A pool of node-postgres whose callers time out while the connection attempt continues. The pool's own timeout would
 * end both, so a connection that always takes a little longer would never be made. Callers are served in order by the
 * first connection that is ready.
 */
export class PatientPool extends pg.Pool {
  readonly #tracing: Pick<Tracing, "bind"> | undefined;
  readonly #waiters = new Queue<Waiter>();
  #waiting = 0;
  /** Requests to the pool: one for each caller, also for callers that timed out. */
  #requested = 0;

  /** @param tracing undefined: tracing is off */
  constructor(configuration: pg.PoolConfig, tracing?: Pick<Tracing, "bind">) {
    super(configuration);
    this.#tracing = tracing;
  }

  /** How many callers wait for a connection. */
  get waiting(): number {
    return this.#waiting;
  }

  override connect(): Promise<pg.PoolClient>;
  override connect(callback: ConnectCallback): void;
  override connect(callback?: ConnectCallback): Promise<pg.PoolClient> | undefined {
    if (callback !== undefined) {
      this.#connect(callback);
      return undefined;
    }
    return new Promise((resolve, reject) => {
      this.#connect((error, client) => (client === undefined ? reject(error) : resolve(client)));
    });
  }

  /**
   * Resolves when the pool has a connection, however long it takes.
   *
   * @throws the driver's error if the connection fails
   */
  async warm(): Promise<void> {
    const client = await super.connect();
    client.release();
  }

  #connect(given: ConnectCallback): void {
    // The connection may come from the end of another caller's statement, in that caller's span.
    const callback = this.#tracing?.bind(given) ?? given;
    if (this.idleCount > this.#requested) {
      // The usual case: a connection is idle.
      this.#requested += 1;
      super.connect((error, client, release) => {
        this.#requested -= 1;
        callback(error, client, release);
      });
      return;
    }
    const waiter: Waiter = {
      callback,
      // Poll the sockets first: if the event loop was blocked, the connection may be ready already.
      timer: setTimeout(() => setImmediate(() => this.#timeOut(waiter)), CONNECTION_WAIT_MS),
      isGone: false,
    };
    this.#waiters.push(waiter);
    this.#waiting += 1;
    this.#requested += 1;
    super.connect((error, client, release) => {
      this.#requested -= 1;
      // Each waiting caller has another connection attempt.
      if (client === undefined && this.#requested >= this.#waiting) return;
      const first = this.#takeFirst();
      if (first !== undefined) first.callback(error, client, release);
      else if (client !== undefined) release();
    });
  }

  #takeFirst(): Waiter | undefined {
    for (;;) {
      const waiter = this.#waiters.take();
      if (waiter === undefined) return undefined;
      if (waiter.isGone) continue;
      this.#settled(waiter);
      return waiter;
    }
  }

  #timeOut(waiter: Waiter): void {
    if (waiter.isGone) return;
    this.#settled(waiter);
    waiter.callback(new ConnectionTimeout(CONNECTION_WAIT_MS), undefined, () => undefined);
  }

  #settled(waiter: Waiter): void {
    waiter.isGone = true;
    clearTimeout(waiter.timer);
    this.#waiting -= 1;
  }
}
