import type { BoundAddress } from "./listen.ts";

/** A server on a port of its own. */
export interface Listener {
  /**
   * Listens on `host:port`; port 0 takes a free one. Resolves to the bound address. Rejects with Node's error
   * (`EADDRINUSE`, `EACCES`, …). To be called once.
   */
  start(address: string): Promise<BoundAddress>;
  /**
   * Accepts no more connections, and asks clients to leave. Resolves when all HTTP/2 connections are closed. The pipeline has
   * to end the streams, and `close()` closes the connections that remain.
   */
  drain(): Promise<void>;
  /** Closes all connections at once. May be called at any time, and again. */
  close(): Promise<void>;
}
