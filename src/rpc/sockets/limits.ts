/** What a listener bears. Each default says why; tests shorten the times. */
export interface ListenerLimits {
  /**
   * Streams that one HTTP/2 connection may have open at once. Above it clients queue calls in silence until their
   * deadlines, so it is far above what a claw needs (it multiplexes agents on one stream), yet it bounds what one
   * connection can cost. Default 4096.
   */
  readonly maxConcurrentStreams: number;
  /** Bytes of headers in a call. Default 16 KiB, what Node allows in HTTP/1.1. */
  readonly maxHeaderBytes: number;
  /**
   * How often the server pings each HTTP/2 connection, in milliseconds; one that has not answered by the next ping is
   * dropped. Peers that vanished without a word hold streams and memory until then. Default 30 s.
   */
  readonly pingIntervalMs: number;
  /** How long a client may take for each of its turns in a TLS handshake, in milliseconds. Default 10 s. */
  readonly handshakeMs: number;
  /** How long a single request message (of unary and server-streaming calls) may take to arrive whole. Default 10 s. */
  readonly requestMs: number;
  /** How long a client may leave a stream unread, while something waits to be sent, before it ends. Default 60 s. */
  readonly writeStallMs: number;
  /**
   * How long an ended call may keep what its client does not read, its status included, before the stream is reset.
   * Default 10 s.
   */
  readonly lingerMs: number;
}

export const DEFAULT_LISTENER_LIMITS: ListenerLimits = {
  maxConcurrentStreams: 4_096,
  maxHeaderBytes: 16_384,
  pingIntervalMs: 30_000,
  handshakeMs: 10_000,
  requestMs: 10_000,
  writeStallMs: 60_000,
  lingerMs: 10_000,
};

/** As much as Node takes: out of reach. */
const MAX_UINT32 = 4_294_967_295;

/** What Node's HTTP/2 servers of both listeners are told. */
export function http2Options({ maxConcurrentStreams, maxHeaderBytes }: ListenerLimits) {
  return {
    settings: { maxConcurrentStreams, maxHeaderListSize: maxHeaderBytes },
    // nghttp2 allows 1 000 stream resets and 33 more a second, then ends the connection with all its streams: a claw that
    // cancels 1 500 watches at once would take the others with it. Twice the streams that can be open lets every stream be
    // cancelled, and opened and cancelled again; refilled in 16 s. Those who reset before they are heard are cut sooner.
    streamResetBurst: 2 * maxConcurrentStreams,
    streamResetRate: Math.ceil(maxConcurrentStreams / 8),
    // Three counts of Node's go up for as long as a connection lives, so that in the end it would cut clients that did
    // nothing wrong. What they are to bound is bounded by what refills: nghttp2's limits of resets and of frames that are
    // wrong, the listener's of headers, unfinished messages and what is written ahead.
    //
    // Bytes, in megabytes, that a connection is thought to hold. What waits to be sent when its stream is reset is freed
    // and never taken off: each cancelled watch adds what its client had not read.
    maxSessionMemory: MAX_UINT32,
    // Requests that were malformed, each of which was refused by itself.
    maxSessionInvalidFrames: MAX_UINT32,
    // Streams in a row that Node had no place for yet, as where those that were cancelled have not been cleared away.
    maxSessionRejectedStreams: MAX_UINT32,
  };
}
