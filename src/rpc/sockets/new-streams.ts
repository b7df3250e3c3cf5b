import { constants, type Http2Session, type ServerHttp2Stream } from "node:http2";
import { networkOf } from "../callers/network.ts";
import { TokenBucket, TokenBuckets } from "../callers/token-buckets.ts";
import { Backpressure } from "./backpressure.ts";
import type { ConnectionGate } from "./connection-gate.ts";
import type { Http2Sessions } from "./http2-sessions.ts";
import type { StreamScheduler } from "./stream-scheduler.ts";

/**
 * How many streams one connection, and one address or IPv6 network, may reset before they are served. A client does so only if it
 * cancels at once, or if its deadline passes while this process is busy. Each such stream costs about 30 µs: a connection can
 * waste 15 ms at once, and an address 60 ms. New connections of an address share its bucket.
 */
const RESETS_OF_CONNECTION = { perSecond: 64, burst: 512 };
const RESETS_OF_NETWORK = { perSecond: 256, burst: 2_048 };

/**
 * The stream id after which the server asks the client to reconnect: half of all ids. A client may use them up in a year on one
 * connection, and not all clients reconnect by themselves then.
 */
const LAST_OF_CONNECTION = 2 ** 30;

/** Serves the new streams of a listener, fairly between its connections. */
export class NewStreams {
  readonly #scheduler: StreamScheduler;
  readonly #sessions: Pick<Http2Sessions, "retire">;
  readonly #gate: Pick<ConnectionGate, "charge">;
  readonly #backpressure = new Backpressure();
  readonly #ofConnection = new WeakMap<Http2Session, TokenBucket>();
  readonly #ofNetwork = new TokenBuckets(RESETS_OF_NETWORK);

  constructor(
    scheduler: StreamScheduler,
    sessions: Pick<Http2Sessions, "retire">,
    gate: Pick<ConnectionGate, "charge">,
  ) {
    this.#scheduler = scheduler;
    this.#sessions = sessions;
    this.#gate = gate;
  }

  /**
   * Calls `serve` when the scheduler comes to the stream, unless it was closed before. While many streams of a connection wait,
   * the server reads no more from it.
   */
  take(stream: ServerHttp2Stream, serve: () => void): void {
    stream.on("error", () => undefined);
    const { session } = stream;
    if (session === undefined) return;
    if ((stream.id ?? 0) > LAST_OF_CONNECTION) this.#sessions.retire(session);
    let waiting = true;
    stream.once("close", () => {
      if (waiting) this.#wasted(session);
    });
    this.#backpressure.add(session);
    this.#scheduler.add(session, () => {
      this.#backpressure.remove(session);
      if (stream.closed || stream.destroyed) return false;
      waiting = false;
      // Node emits the end of an empty body at once, before grpc-js has a listener for it.
      const { readableEnded } = stream;
      serve();
      if (readableEnded) process.nextTick(() => stream.emit("end"));
      return true;
    });
  }

  #wasted(session: Http2Session): void {
    if (session.destroyed) return;
    let budget = this.#ofConnection.get(session);
    if (budget === undefined) {
      budget = new TokenBucket(RESETS_OF_CONNECTION);
      this.#ofConnection.set(session, budget);
    }
    const address = session.socket.remoteAddress ?? "";
    // Takes from both buckets: a reset counts for the connection and for its address.
    const tooMany = budget.take() > 0;
    if (this.#ofNetwork.take(networkOf(address)) > 0 || tooMany) {
      this.#gate.charge(address);
      session.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM);
    }
  }
}
