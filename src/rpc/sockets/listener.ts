import type { BoundAddress } from "./listen.ts";

/** A listener: a server on a port of its own, and what it takes to stop it. */
export interface Listener {
  /**
   * Listens on `host:port`; port 0 takes a free one. Resolves to the address in force. Rejects with Node's error
   * (`EADDRINUSE`, `EACCES`, …). Once only.
   */
  start(address: string): Promise<BoundAddress>;
  /**
   * Accepts no more connections and asks clients to leave. Resolves when those on HTTP/2 have left; streams have to be
   * ended by the pipeline, and who does not leave is put out by `close()`.
   */
  drain(): Promise<void>;
  /** Stops at once: every connection ends. Can be called at any time, and again. */
  close(): Promise<void>;
}
