import { Socket } from "node:net";
import pg from "pg";
import { NoConnectionInTime } from "./failures.ts";

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
/** How long a caller waits for a connection, in milliseconds. The connection goes on without it, for the next one. */
export const CONNECTION_WAIT_MS = 5_000;

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

/**
 * node-postgres's pool, in which a caller that has waited long enough goes away and the connection that it waited for does
 * not. The pool's own limit ends both, and a connection that always takes a little longer is then never made.
 */
export class PatientPool extends pg.Pool {
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
    let gone = false;
    const leave = (): void => {
      if (gone) return;
      gone = true;
      callback(new NoConnectionInTime(CONNECTION_WAIT_MS), undefined, () => undefined);
    };
    const timer = setTimeout(() => setImmediate(leave), CONNECTION_WAIT_MS);
    super.connect((error, client, release) => {
      clearTimeout(timer);
      if (gone) {
        release();
        return;
      }
      gone = true;
      callback(error, client, release);
    });
  }
}
