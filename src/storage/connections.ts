import { Socket } from "node:net";
import pg from "pg";
import { Queue } from "../scheduling/queue.ts";
import { ConnectionTimeout } from "./failures.ts";

/**
 * How long TCP may take, in milliseconds. The kernel accepts, however loaded the server is: whoever has not by then does
 * not get our packets.
 */
const TCP_MS = 3_000;
/**
 * How long a server that has accepted may take until the session begins, in milliseconds. TLS and SCRAM take some ten
 * turns, each of which waits for a processor on both sides. An attempt that is given up is begun anew by the next caller,
 * so a limit that a loaded machine exceeds once is exceeded for as long as the load lasts.
 */
export const HANDSHAKE_MS = 30_000;
/**
 * How long a caller waits for a connection, in milliseconds. The connection goes on without it, for the next one. A change
 * waits twice at most, which is less than a call's deadline: its caller is told why.
 */
export const CONNECTION_WAIT_MS = 4_000;

/** A socket that gives up a host whose TCP does not answer. */
export function newSocket(): Socket {
  const socket = new Socket();
  socket.once("connectionAttempt", (address, port) => {
    const giveUp = (): void => {
      if (!socket.connecting) return;
      socket.destroy(Object.assign(new Error(`connect ETIMEDOUT ${address}:${port}`), { code: "ETIMEDOUT" }));
    };
    // After a look at the sockets: where the event loop was held up, the answer may be there already.
    const timer = setTimeout(() => setImmediate(giveUp), TCP_MS);
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
  gone: boolean;
}

/**
 * node-postgres's pool, in which a caller that has waited long enough goes away and the connection that it waited for does
 * not. The pool's own limit ends both, and a connection that always takes a little longer is then never made. Callers are
 * served in their order by whichever connection is free or ready first.
 */
export class PatientPool extends pg.Pool {
  readonly #waiters = new Queue<Waiter>();
  #waiting = 0;
  /** Connections that the pool was asked for: one for each caller, also after that is gone. */
  #asked = 0;

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

  /** Resolves when the pool has a connection, however long it takes. Rejects when there is none to be had. */
  async warm(): Promise<void> {
    const client = await super.connect();
    client.release();
  }

  #connect(callback: ConnectCallback): void {
    if (this.idleCount > this.#asked) {
      // The usual case, in which nobody waits.
      this.#asked += 1;
      super.connect((error, client, release) => {
        this.#asked -= 1;
        callback(error, client, release);
      });
      return;
    }
    const waiter: Waiter = {
      callback,
      // After a look at the sockets: where the event loop was held up, the connection may be there already.
      timer: setTimeout(() => setImmediate(() => this.#leave(waiter)), CONNECTION_WAIT_MS),
      gone: false,
    };
    this.#waiters.push(waiter);
    this.#waiting += 1;
    this.#asked += 1;
    super.connect((error, client, release) => {
      this.#asked -= 1;
      // Those who wait have another connection coming each.
      if (client === undefined && this.#asked >= this.#waiting) return;
      const first = this.#takeFirst();
      if (first !== undefined) first.callback(error, client, release);
      else if (client !== undefined) release();
    });
  }

  #takeFirst(): Waiter | undefined {
    for (;;) {
      const waiter = this.#waiters.take();
      if (waiter === undefined) return undefined;
      if (waiter.gone) continue;
      this.#settled(waiter);
      return waiter;
    }
  }

  #leave(waiter: Waiter): void {
    if (waiter.gone) return;
    this.#settled(waiter);
    waiter.callback(new ConnectionTimeout(CONNECTION_WAIT_MS), undefined, () => undefined);
  }

  #settled(waiter: Waiter): void {
    waiter.gone = true;
    clearTimeout(waiter.timer);
    this.#waiting -= 1;
  }
}
