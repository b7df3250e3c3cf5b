import type { Socket } from "node:net";
import type { Logger } from "../../../common/logging/logger.ts";
import type { Count } from "../../telemetry/metrics/count.ts";
import { Metrics } from "../../telemetry/metrics/metrics.ts";
import { networkOf } from "../callers/network.ts";
import { TokenBuckets } from "../callers/token-buckets.ts";
import { connectionsWithin } from "./open-files.ts";

export interface ConnectionLimits {
  /** Open connections of both listeners together. */
  readonly maxConnections: number;
  /** Files and sockets that the process may have open. Undefined: unlimited, or unknown. */
  readonly openFiles?: number | undefined;
  /** New connections each second from one address or IPv6 network; twice as many at once. */
  readonly connectionsPerSecond: number;
}

/**
 * An idle connection costs a file descriptor and tens of kilobytes. 50 000 are about two gigabytes, and more than the claws of a
 * replica need. A TLS handshake costs about a millisecond of CPU: 500 a second from one address take half a core, and 10 000 claws
 * behind one address reconnect within 20 s.
 */
export const DEFAULT_CONNECTION_LIMITS: ConnectionLimits = { maxConnections: 50_000, connectionsPerSecond: 500 };

/** Accepts or rejects new connections before the first read. Both listeners share one. */
export interface ConnectionGate {
  /** Counts a connection until it closes. Closes one above a limit at once, without a response, and returns false. */
  admit(socket: Socket): boolean;
  /** Counts many connections for an address whose client misused one, so that it has to wait before it reconnects. */
  charge(address: string): void;
  readonly open: number;
  readonly refused: number;
}

/**
 * The connections that `charge` counts. With the default limits a client can misuse ten connections at once, and then five a
 * second, each of which costs about 20 ms.
 */
const CHARGE = 100;

/** One log line in this time, at most. */
const WARN_EVERY_MS = 60_000;

/** @param metrics default: metrics that nothing reads */
export function createConnectionGate(limits: ConnectionLimits, log: Logger, metrics = new Metrics()): ConnectionGate {
  const counts: Readonly<Record<keyof ConnectionLimits, Count>> = {
    maxConnections: metrics.counter("harborforge_connections_refused_total", { limit: "max_connections" }),
    openFiles: metrics.counter("harborforge_connections_refused_total", { limit: "open_files" }),
    connectionsPerSecond: metrics.counter("harborforge_connections_refused_total", { limit: "connections_per_second" }),
  };
  const buckets = new TokenBuckets({
    perSecond: limits.connectionsPerSecond,
    burst: 2 * limits.connectionsPerSecond,
  });
  const withinFiles = limits.openFiles === undefined ? Number.POSITIVE_INFINITY : connectionsWithin(limits.openFiles);
  let open = 0;
  let refused = 0;
  let warnedAt = Number.NEGATIVE_INFINITY;

  function refuse(socket: Socket, limit: keyof ConnectionLimits): false {
    refused += 1;
    counts[limit].add();
    // A reset frees the socket at once. An orderly end would wait for the client.
    socket.resetAndDestroy();
    const now = performance.now();
    if (now - warnedAt >= WARN_EVERY_MS) {
      warnedAt = now;
      const facts = { from: socket.remoteAddress, limit, open, refused, ...limits };
      log.warn({ event: "connection.rejected", ...facts }, "rejected connections above a limit");
    }
    return false;
  }

  return {
    admit: (socket) => {
      if (open >= limits.maxConnections) return refuse(socket, "maxConnections");
      // The replica keeps descriptors for the database. Without this check libuv would close connections without a trace.
      if (open >= withinFiles) return refuse(socket, "openFiles");
      if (buckets.take(networkOf(socket.remoteAddress ?? "")) > 0) {
        return refuse(socket, "connectionsPerSecond");
      }
      open += 1;
      socket.once("close", () => {
        open -= 1;
      });
      return true;
    },
    charge: (address) => buckets.charge(networkOf(address), CHARGE),
    get open() {
      return open;
    },
    get refused() {
      return refused;
    },
  };
}
