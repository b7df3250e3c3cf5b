import type { Socket } from "node:net";
import type { Logger } from "pino";
import { networkOf } from "../callers/network.ts";
import { TokenBuckets } from "../callers/token-buckets.ts";

export interface ConnectionLimits {
  /** Connections of both listeners together. */
  readonly maxConnections: number;
  /** New connections a second from one address, or one IPv6 network; twice as many at once. */
  readonly connectionsPerSecond: number;
}

/**
 * A connection costs a file descriptor and tens of kilobytes before it says a word; 50 000 are two gigabytes or so, and more
 * than claws that each hold one. A TLS handshake costs about a millisecond of CPU: 500 a second from one place take
 * half a core, and let 10 000 claws behind one address come back within 20 s.
 */
export const DEFAULT_CONNECTION_LIMITS: ConnectionLimits = { maxConnections: 50_000, connectionsPerSecond: 500 };

/** Decides which connections come in at all, before a byte of theirs is read. Both listeners have one between them. */
export interface ConnectionGate {
  /** Counts a connection until it closes. False for one too many, which is closed at once: there is nobody to tell why. */
  admit(socket: Socket): boolean;
  /** A connection from this address had to be cut: it counts as many, so that who comes again soon has to wait. */
  charge(address: string): void;
  readonly open: number;
  readonly refused: number;
}

/**
 * As how many connections one counts that had to be cut. With the limits above ten can be cut at once, and then five a second,
 * each of which cost 20 ms or so.
 */
const COST_OF_CUT = 100;

/** At most one line in this time says that connections are refused. */
const WARN_EVERY_MS = 60_000;

export function createConnectionGate(limits: ConnectionLimits, log: Logger): ConnectionGate {
  const buckets = new TokenBuckets({
    perSecond: limits.connectionsPerSecond,
    burst: 2 * limits.connectionsPerSecond,
  });
  let open = 0;
  let refused = 0;
  let warnedAt = Number.NEGATIVE_INFINITY;

  function refuse(socket: Socket, why: string): false {
    refused += 1;
    // A reset leaves nothing behind, where a polite end would wait for the other side.
    socket.resetAndDestroy();
    const now = performance.now();
    if (now - warnedAt >= WARN_EVERY_MS) {
      warnedAt = now;
      log.warn({ from: socket.remoteAddress, open, refused, ...limits }, `connections are refused: ${why}`);
    }
    return false;
  }

  return {
    admit: (socket) => {
      if (open >= limits.maxConnections) return refuse(socket, "too many are open");
      if (buckets.take(networkOf(socket.remoteAddress ?? "")) > 0) {
        return refuse(socket, "too many come from one address");
      }
      open += 1;
      socket.once("close", () => {
        open -= 1;
      });
      return true;
    },
    charge: (address) => buckets.charge(networkOf(address), COST_OF_CUT),
    get open() {
      return open;
    },
    get refused() {
      return refused;
    },
  };
}
