import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** A way to the database that a test can cut: connections break, and new ones are refused. */
export class DatabaseProxy implements AsyncDisposable {
  /** The database's address through the proxy. */
  readonly url: string;
  readonly #target: URL;
  readonly #port: number;
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;

  private constructor(server: Server, target: URL, port: number) {
    this.#target = target;
    this.#port = port;
    const through = new URL(target);
    through.hostname = "127.0.0.1";
    through.port = String(port);
    this.url = through.href;
    this.#serve(server);
  }

  static async open(url: string): Promise<DatabaseProxy> {
    const server = createServer();
    const port = await listen(server, 0);
    return new DatabaseProxy(server, new URL(url), port);
  }

  /** Breaks every connection and refuses new ones, until `mend`. */
  async cut(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    const closed = once(server, "close");
    server.close();
    for (const socket of this.#sockets) socket.resetAndDestroy();
    await closed;
  }

  async mend(): Promise<void> {
    if (this.#server !== undefined) return;
    const server = createServer();
    await listen(server, this.#port);
    this.#serve(server);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cut();
  }

  #serve(server: Server): void {
    this.#server = server;
    server.on("connection", (inner) => {
      const outer = connect(Number(this.#target.port || 5432), this.#target.hostname);
      for (const [socket, other] of [
        [inner, outer],
        [outer, inner],
      ] as const) {
        this.#sockets.add(socket);
        socket.setNoDelay(true);
        socket.on("error", () => other.destroy());
        socket.on("close", () => {
          this.#sockets.delete(socket);
          other.destroy();
        });
        socket.pipe(other);
      }
    });
  }
}

async function listen(server: Server, port: number): Promise<number> {
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === "string") throw new TypeError("a TCP server has a port");
  return address.port;
}
