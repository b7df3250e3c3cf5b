/** The limits of a listener. Tests shorten the times. */
export interface ListenerLimits {
  /**
   * Streams that one HTTP/2 connection may have open at once. Clients silently queue more calls until their deadlines, so the limit
   * is far above the need of a claw, whose agents share one stream. It limits the cost of one connection. Default 4096.
   */
  readonly maxConcurrentStreams: number;
  /** Bytes of headers in a call. Default 16 KiB, Node's limit for HTTP/1.1. */
  readonly maxHeaderBytes: number;
  /**
   * How often the server pings each HTTP/2 connection, in milliseconds. It closes one that has not answered by the next ping.
   * A client that disappeared without closing its connection holds streams and memory until then. Default 30 s.
   */
  readonly pingIntervalMs: number;
  /** How long a client may take for each of its flights of a TLS handshake, in milliseconds. Default 10 s. */
  readonly handshakeMs: number;
  /** How long the request of a unary or server-streaming call may take to arrive, in milliseconds. Default 10 s. */
  readonly requestMs: number;
  /** How long a stream may wait for a client that does not read its responses, in milliseconds. Default 60 s. */
  readonly writeStallMs: number;
  /**
   * How long an ended call keeps its unread response and status before its stream is reset, in milliseconds. Default
   * 10 s.
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

/** The largest value that Node takes: no limit. */
const MAX_UINT32 = 4_294_967_295;

/** The options of Node's HTTP/2 servers, for both listeners. */
export function http2Options({ maxConcurrentStreams, maxHeaderBytes }: ListenerLimits) {
  return {
    settings: { maxConcurrentStreams, maxHeaderListSize: maxHeaderBytes },
    // nghttp2 allows 1 000 stream resets and 33 more each second. Then it closes the connection with all its streams, so a claw that
    // cancels 1 500 watches would lose its other streams. Twice the open streams lets a client cancel all of them, open them again
    // and cancel them again. The limit refills in 16 s. `new-streams.ts` limits resets of streams that were not served yet.
    streamResetBurst: 2 * maxConcurrentStreams,
    streamResetRate: Math.ceil(maxConcurrentStreams / 8),
    // Node never lowers the next three counts while a connection lives, so in the end they would close connections of correct
    // clients. Limits that refill replace them: those of nghttp2 for resets and invalid frames, and the listener's for headers,
    // incomplete messages and unread responses.
    //
    // Bytes of a connection, in megabytes. Node does not subtract the unsent bytes of a reset stream: each cancelled watch would add
    // what its client had not read.
    maxSessionMemory: MAX_UINT32,
    // Malformed requests. Each of them was rejected by itself.
    maxSessionInvalidFrames: MAX_UINT32,
    // Streams in a row that Node rejected because it had not freed cancelled ones yet.
    maxSessionRejectedStreams: MAX_UINT32,
  };
}
