import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** The purposes of a replica's database connections: the end of their `application_name`. */
export const POOLS = ["beats", "commits", "reads", "api", "feed", "listen"] as const;
export type Pool = (typeof POOLS)[number];

/** A longer startup message is an attack. */
const LONGEST_STARTUP_BYTES = 10_000;

/**
 * A path to the database that distinguishes a replica's connection pools by the application name of each
 * connection. It stalls the connections of one pool and forwards all others. Loopback only.
 */
export class PoolProxy implements AsyncDisposable {
  readonly port: number;
  readonly #server: Server;
  readonly #target: () => number;
  readonly #connections = new Set<Connection>();
  readonly #stalled = new Set<string>();

  private constructor(server: Server, port: number, target: () => number) {
    this.#server = server;
    this.port = port;
    this.#target = target;
    server.on("connection", (socket) => this.#accept(socket));
  }

  /** @param target the port of the database, requested for each connection */
  static async open(target: () => number): Promise<PoolProxy> {
    const server = createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address: AddressInfo | string | null = server.address();
    if (address === null || typeof address === "string") throw new TypeError("a TCP server has a port");
    return new PoolProxy(server, address.port, target);
  }

  /** Connections of this pool, open and new, silently forward nothing from now on. */
  stall(pool: Pool): void {
    this.#stalled.add(pool);
    for (const connection of this.#connections) if (connection.pool === pool) connection.stall();
  }

  /** They forward again; the buffered bytes go first. */
  resume(pool: Pool): void {
    this.#stalled.delete(pool);
    for (const connection of this.#connections) if (connection.pool === pool) connection.resume();
  }

  /** The number of open connections of a pool. */
  count(pool: Pool): number {
    return [...this.#connections].filter((connection) => connection.pool === pool).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of this.#connections) connection.end();
    this.#server.close();
    await once(this.#server, "close");
  }

  #accept(inner: Socket): void {
    const connection = new Connection(inner, this.#target(), {
      isStalled: (pool) => this.#stalled.has(pool),
      onEnd: () => this.#connections.delete(connection),
    });
    this.#connections.add(connection);
  }
}

interface Dependencies {
  isStalled(pool: string): boolean;
  onEnd(): void;
}

class Connection {
  pool = "";
  readonly #inner: Socket;
  readonly #outer: Socket;

  constructor(inner: Socket, target: number, { isStalled, onEnd }: Dependencies) {
    this.#inner = inner;
    this.#outer = connect(target, "127.0.0.1");
    for (const socket of [inner, this.#outer]) {
      socket.setNoDelay(true);
      socket.on("error", () => this.end());
      socket.on("close", () => {
        this.end();
        onEnd();
      });
    }
    let startup = Buffer.alloc(0);
    const onData = (bytes: Buffer): void => {
      startup = Buffer.concat([startup, bytes]);
      const pool = poolOf(startup);
      if (pool === undefined) {
        if (startup.length > LONGEST_STARTUP_BYTES) this.end();
        return;
      }
      inner.off("data", onData);
      inner.pause();
      this.pool = pool;
      this.#outer.write(startup);
      if (!isStalled(pool)) this.resume();
    };
    inner.on("data", onData);
  }

  stall(): void {
    for (const socket of [this.#inner, this.#outer]) socket.unpipe().pause();
  }

  resume(): void {
    this.#inner.pipe(this.#outer);
    this.#outer.pipe(this.#inner);
  }

  /** A reset is passed on as a reset. */
  end(): void {
    for (const socket of [this.#inner, this.#outer]) if (!socket.destroyed) socket.resetAndDestroy();
  }
}

/**
 * The pool of a startup message; undefined while the message is incomplete.
 * https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-STARTUPMESSAGE
 */
function poolOf(startup: Buffer): string | undefined {
  if (startup.length < 4 || startup.length < startup.readInt32BE(0)) return undefined;
  const words = startup.subarray(8, startup.readInt32BE(0)).toString("utf8").split("\0");
  const name = words[words.indexOf("application_name") + 1] ?? "";
  return name.slice(name.lastIndexOf(" ") + 1);
}
