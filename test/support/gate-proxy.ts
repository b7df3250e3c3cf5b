import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** A path to the database that a test can cut: open connections are reset, and new ones are closed at once. */
export class DatabaseProxy implements AsyncDisposable {
  /** The database's address through the proxy. */
  readonly url: string;
  /** The number of connections that were closed while it was cut. */
  refused = 0;
  readonly #server: Server;
  readonly #target: URL;
  readonly #sockets = new Set<Socket>();
  #cut = false;

  private constructor(server: Server, target: URL) {
    this.#server = server;
    this.#target = target;
    const through = new URL(target);
    through.hostname = "127.0.0.1";
    through.port = String(portOf(server));
    this.url = through.href;
    server.on("connection", (socket) => this.#accept(socket));
  }

  static async open(url: string): Promise<DatabaseProxy> {
    const server = createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new DatabaseProxy(server, new URL(url));
  }

  cut(): void {
    this.#cut = true;
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  mend(): void {
    this.#cut = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }

  #accept(inner: Socket): void {
    if (this.#cut) {
      this.refused += 1;
      inner.on("error", () => undefined);
      inner.resetAndDestroy();
      return;
    }
    const outer = connect(Number(this.#target.port || 5432), this.#target.hostname);
    this.#join(inner, outer);
    this.#join(outer, inner);
  }

  #join(socket: Socket, other: Socket): void {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("error", () => other.destroy());
    socket.on("close", () => {
      this.#sockets.delete(socket);
      other.destroy();
    });
    socket.pipe(other);
  }
}

function portOf(server: Server): number {
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === "string") throw new TypeError("a TCP server has a port");
  return address.port;
}
