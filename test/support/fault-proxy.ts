import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/**
 * The state of the path: it forwards; it resets open connections and refuses new ones; or it silently drops
 * bytes.
 */
type Way = "carrying" | "cut" | "swallowing";

/**
 * A TCP proxy whose connections a test can break, stall and swallow. New connections go to the ports of
 * `routes` in turn, past those that refuse, like a balancer without health checks. Loopback only.
 */
export class FaultProxy implements AsyncDisposable {
  readonly port: number;
  /**
   * The milliseconds for which a new connection forwards nothing, like one to a server that is slow to begin a
   * session.
   */
  delayMs = 0;
  /** The number of connections made through it. */
  accepted = 0;
  readonly #server: Server;
  readonly #routes: () => readonly number[];
  readonly #connections = new Set<Connection>();
  #way: Way = "carrying";
  #turn: number;

  private constructor(server: Server, routes: () => readonly number[], turn: number) {
    this.#server = server;
    this.#routes = routes;
    this.#turn = turn;
    this.port = portOf(server);
    server.on("connection", (socket) => this.#accept(socket));
  }

  /** @param turn the index of the first route; the next connection takes the next one */
  static async open(routes: () => readonly number[], turn = 0): Promise<FaultProxy> {
    const server = createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new FaultProxy(server, routes, turn);
  }

  /** `host:port` to connect to. */
  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** The target ports of its open connections. */
  get ports(): readonly number[] {
    return [...this.#connections].flatMap(({ port }) => (port === undefined ? [] : [port]));
  }

  /** Resets every connection. New ones are forwarded. */
  drop(): number {
    const { size } = this.#connections;
    for (const connection of this.#connections) connection.reset();
    return size;
  }

  /** The open connections forward nothing from now on, and stay open. New ones are forwarded. */
  stall(): number {
    for (const connection of this.#connections) connection.stall();
    return this.#connections.size;
  }

  /** Resumes stalled connections; the buffered bytes go first. */
  resume(): void {
    for (const connection of this.#connections) connection.resume();
  }

  /** Sends bytes to every client in the place of the server, between two messages of the server. */
  inject(bytes: Buffer): void {
    for (const connection of this.#connections) connection.inject(bytes);
  }

  /** Resets every connection and refuses new ones, until `mend`. */
  cut(): void {
    this.#way = "cut";
    this.drop();
  }

  /** Open and new connections silently forward nothing, until `mend`. */
  swallow(): void {
    this.#way = "swallowing";
    this.stall();
  }

  mend(): void {
    this.#way = "carrying";
    this.resume();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }

  #accept(inner: Socket): void {
    inner.on("error", () => undefined);
    if (this.#way === "cut") {
      inner.resetAndDestroy();
      return;
    }
    const connection = new Connection(inner, this.#nextRoutes(), () => this.#connections.delete(connection));
    this.#connections.add(connection);
    this.accepted += 1;
    const carry = (): void => {
      if (this.#way === "carrying") connection.resume();
    };
    if (this.delayMs === 0) carry();
    else setTimeout(carry, this.delayMs).unref();
  }

  #nextRoutes(): number[] {
    const routes = this.#routes();
    const first = routes.length === 0 ? 0 : this.#turn++ % routes.length;
    return [...routes.slice(first), ...routes.slice(0, first)];
  }
}

/** Starts stalled; the first `resume` connects it. */
class Connection {
  readonly #inner: Socket;
  readonly #routes: number[];
  readonly #onEnd: () => void;
  #outer: Socket | undefined;
  #connected = false;
  #stalled = true;
  #ended = false;

  constructor(inner: Socket, routes: number[], onEnd: () => void) {
    this.#inner = inner;
    this.#routes = routes;
    this.#onEnd = onEnd;
    inner.setNoDelay(true);
    inner.on("close", () => this.#end());
  }

  /** The target port; undefined before it is known. */
  get port(): number | undefined {
    return this.#outer?.remotePort;
  }

  stall(): void {
    if (this.#stalled) return;
    this.#stalled = true;
    for (const socket of [this.#inner, this.#outer]) socket?.unpipe().pause();
  }

  resume(): void {
    if (!this.#stalled || this.#ended) return;
    this.#stalled = false;
    if (this.#outer === undefined) this.#connect();
    else if (this.#connected) this.#join(this.#outer);
  }

  inject(bytes: Buffer): void {
    if (!this.#stalled && this.#connected && !this.#ended) this.#inner.write(bytes);
  }

  reset(): void {
    this.#inner.resetAndDestroy();
    this.#outer?.resetAndDestroy();
    this.#end();
  }

  #connect(): void {
    const port = this.#routes.shift();
    if (port === undefined) {
      this.reset();
      return;
    }
    const outer = connect(port, "127.0.0.1");
    this.#outer = outer;
    outer.setNoDelay(true);
    // Refused: tries the next route. A later error resets the other side.
    outer.on("error", () => (this.#connected || this.#ended ? this.reset() : this.#connect()));
    outer.once("connect", () => {
      this.#connected = true;
      outer.on("close", () => this.#end());
      if (!this.#stalled) this.#join(outer);
    });
  }

  #join(outer: Socket): void {
    this.#inner.pipe(outer);
    outer.pipe(this.#inner);
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#inner.destroy();
    this.#outer?.destroy();
    this.#onEnd();
  }
}

/** The port that a TCP server listens on. */
export function portOf(server: Pick<Server, "address">): number {
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === "string") throw new TypeError("a TCP server has a port");
  return address.port;
}
