import { once } from "node:events";
import type { Server } from "node:net";
import type { Logger } from "../../../common/logging/logger.ts";

/** Sends small messages at once, and probes a silent peer after a minute, instead of two hours. */
export const SOCKET_OPTIONS = { noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 };

/** The address that a listener is bound to, e.g. `127.0.0.1:50051` or `[::1]:50051`. */
export type BoundAddress = string;

/**
 * Listens on `host:port` (`[v6]:port` for IPv6); port 0 takes a free one. Resolves to the bound address.
 * Rejects with Node's error (`EADDRINUSE`, `EACCES`, …), or a `RangeError` if `address` is malformed.
 */
export async function listen(server: Server, address: string, log: Logger): Promise<BoundAddress> {
  const { host, port } = parseAddress(address);
  server.listen({ host, port });
  await once(server, "listening");
  // Later errors are of accepting, e.g. too many open files: they must not end open connections.
  server.on("error", (error) =>
    log.error({ event: "listener.failed", err: error, address }, "cannot accept connections"),
  );
  const bound = server.address();
  if (bound === null || typeof bound === "string") return address;
  return bound.family === "IPv6" ? `[${bound.address}]:${bound.port}` : `${bound.address}:${bound.port}`;
}

function parseAddress(address: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-fA-F:.%\w]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(address);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || !(port <= 65_535)) {
    throw new RangeError(`${JSON.stringify(address)} is no address to listen on: use host:port, e.g. 127.0.0.1:8080`);
  }
  return { host, port };
}
