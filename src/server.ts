import { listenOn } from "./server/listen-on.ts";
import type { ServerOptions } from "./server/options.ts";
import { assembleReplica, closeReplica, type Replica } from "./server/replica.ts";

/** The addresses in force, `host:port`. */
export interface Addresses {
  readonly grpc: string;
  readonly http: string;
}

/** One replica of the service, over one database. */
export class Server {
  readonly addresses: Addresses;
  readonly #replica: Replica;
  #closed: Promise<void> | undefined;

  private constructor(replica: Replica, addresses: Addresses) {
    this.#replica = replica;
    this.addresses = addresses;
  }

  /** The number of this replica in the database, which was never used before. */
  get replica(): number {
    return this.#replica.number;
  }

  /**
   * Serves when the promise resolves. Where it rejects, nothing is left open.
   *
   * @throws AddressError where a listener cannot have its address
   */
  static async start(options: ServerOptions): Promise<Server> {
    const replica = await assembleReplica(options);
    try {
      await replica.watching.start();
      await replica.liveness.start();
      replica.access.start();
      replica.probe.start();
      replica.tasks.start();
      replica.openFiles.start();
      const { listeners } = replica;
      const [grpc, http] = await Promise.all([
        listenOn("gRPC listener", "HARBORFORGE_GRPC_ADDRESS", options.grpcAddress, listeners.grpc),
        listenOn("Connect listener", "HARBORFORGE_HTTP_ADDRESS", options.httpAddress, listeners.connect),
      ]);
      return new Server(replica, { grpc, http });
    } catch (error) {
      await closeReplica(replica);
      throw error;
    }
  }

  /** Makes health report the replica as not ready. It serves everything until `stop`. */
  announceStop(): void {
    this.#replica.drain.announce(this.#replica);
  }

  /** Drains the replica, within `graceMs` milliseconds and a second or two, and closes it. May be called again. */
  async stop(graceMs: number): Promise<void> {
    await this.#replica.drain.run(this.#replica, graceMs);
    this.#closed ??= closeReplica(this.#replica);
    await this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop(0);
  }
}
