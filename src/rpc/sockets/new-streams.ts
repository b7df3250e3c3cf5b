import { constants, type Http2Session, type ServerHttp2Stream } from "node:http2";
import { networkOf } from "../callers/network.ts";
import { TokenBuckets } from "../callers/token-buckets.ts";
import { Backpressure } from "./backpressure.ts";
import type { ConnectionGate } from "./connection-gate.ts";
import type { Http2Sessions } from "./http2-sessions.ts";
import type { StreamScheduler } from "./stream-scheduler.ts";

/**
 * Streams that one connection, or all of one address or IPv6 network, may reset before their turn has come. Nobody needs to who
 * wants an answer: only a caller that gives up as soon as it has asked, or whose deadline passes while this process does not get
 * to read. Each costs 30 µs or so: what a connection may waste at once is 15 ms, and an address 60 ms. Who comes back on new
 * connections finds the bucket of its address as empty as it left it.
 */
const RESETS_OF_CONNECTION = { perSecond: 64, burst: 512 };
const RESETS_OF_NETWORK = { perSecond: 256, burst: 2_048 };

/**
 * The number of a stream from which on its connection is asked to go: half of those that there are. Clients do not all know how to
 * go on when they have run out of numbers, and after a year on one connection they may.
 */
const LAST_OF_CONNECTION = 2 ** 30;

/** The new streams of a listener. */
export class NewStreams {
  readonly #scheduler: StreamScheduler;
  readonly #sessions: Pick<Http2Sessions, "retire">;
  readonly #gate: Pick<ConnectionGate, "charge">;
  readonly #backpressure = new Backpressure();
  readonly #ofConnection = new WeakMap<Http2Session, TokenBuckets>();
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
   * Has a stream served when its turn comes; one that is gone by then costs no more. While many of a connection wait, no more is
   * read from it.
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
    this.#scheduler.wait(session, () => {
      this.#backpressure.remove(session);
      if (stream.closed || stream.destroyed) return false;
      waiting = false;
      // Node tells of a body that is empty at once, whether anybody listens already or not.
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
      budget = new TokenBuckets({ ...RESETS_OF_CONNECTION, maxKeys: 1 });
      this.#ofConnection.set(session, budget);
    }
    const address = session.socket.remoteAddress ?? "";
    // Both are taken from: what one connection wastes counts for its address, too.
    const tooMany = budget.take("") > 0;
    if (this.#ofNetwork.take(networkOf(address)) > 0 || tooMany) {
      this.#gate.charge(address);
      session.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM);
    }
  }
}
