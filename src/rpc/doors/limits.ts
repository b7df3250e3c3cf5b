/**
 * The greatest message either door takes in, in bytes, compressed or not, after decompression: 1 MiB, as the contract
 * says. The libraries enforce it exactly, before a byte is parsed; their refusal gets our details on its way out.
 */
export const MAX_MESSAGE_BYTES = 1_048_576;

/** What a door bears. Each default says why; tests shorten the times. */
export interface DoorLimits {
  /**
   * Streams that one HTTP/2 connection may have open at once. Above it clients queue calls in silence until their
   * deadlines, so it is far above what a claw needs (it multiplexes agents on one stream), yet it bounds what one
   * connection can cost. Default 4096.
   */
  readonly maxConcurrentStreams: number;
  /**
   * Megabytes that Node may believe to hold for one HTTP/2 connection before it refuses new streams on it. Its default of 10
   * is met by 9 700 idle streams; and its account of a connection can grow beyond what is held: after tens of thousands of
   * calls, many of them cancelled or broken, a connection at 128 was refused every new stream for good
   * (`ENHANCE_YOUR_CALM`), while the process held no more than before. What it is meant to bound is bounded elsewhere: streams,
   * headers, unfinished messages, what is written ahead. So it is out of reach. Default 1 000 000.
   */
  readonly maxSessionMemoryMb: number;
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

export const DEFAULT_DOOR_LIMITS: DoorLimits = {
  maxConcurrentStreams: 4_096,
  maxSessionMemoryMb: 1_000_000,
  maxHeaderBytes: 16_384,
  pingIntervalMs: 30_000,
  handshakeMs: 10_000,
  requestMs: 10_000,
  writeStallMs: 60_000,
  lingerMs: 10_000,
};

/**
 * nghttp2 allows 1 000 stream resets and 33 more a second, then ends the connection with all its streams: a claw that
 * cancels 1 500 watches at once would take the others with it. Twice the streams that can be open lets
 * every stream be cancelled, and opened and cancelled again; refilled in 16 s, it ends a client that does nothing but reset
 * within a second or two of what one core can take.
 */
export function resetBudget(limits: DoorLimits): { streamResetBurst: number; streamResetRate: number } {
  return {
    streamResetBurst: 2 * limits.maxConcurrentStreams,
    streamResetRate: Math.ceil(limits.maxConcurrentStreams / 8),
  };
}

/** The longest time that a Node timer can wait, in milliseconds, 24.8 days: a longer one fires at once. */
export const MAX_TIMER_MS = 2_147_483_647;
