import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { type ConnectedClients, clientsOnRoutes, type Route, routesOf } from "./service-clients.ts";
import { ServiceConnection, type TlsOptions } from "./service-connection.ts";
import type { Token } from "./token.ts";
import { traceContext } from "./trace-context.ts";

export type { ConnectedClients, ServiceClients } from "./service-clients.ts";

/** The connection to the service. Give exactly one of `address`, `addresses` and `transport`. */
export interface ServiceTarget {
  /** `http://host:port`, `https://host:port` or `host:port`, of either listener. */
  readonly address?: string;
  /** Several addresses. The client takes the next one when one refuses, drains or falls silent. */
  readonly addresses?: readonly string[];
  /**
   * A Connect transport, or several that lead to different addresses: for other protocols, proxies and libraries. The client
   * cannot close its connection. It only takes the next transport when one does not work.
   */
  readonly transport?: Transport | readonly Transport[];
  /** Sent with every call as `authorization: Bearer …`. A function is called before each call. */
  readonly token?: Token;
  /** Certificates for `https` addresses, as `node:tls` takes them. */
  readonly tls?: TlsOptions;
}

/**
 * Callers of the service, by gRPC unless `transport` uses another protocol. The first call connects. A call after a lost
 * connection connects again.
 *
 * @example
 * using service = createServiceClients({ address: "127.0.0.1:50051" });
 * const { agent } = await service.agents.getAgent({ key: { case: "agentId", value: "bob-1" } });
 *
 * @throws RangeError for an invalid address, and without an address or transport
 */
export function createServiceClients(target: ServiceTarget): ConnectedClients {
  const { address, addresses = address === undefined ? [] : [address], transport, token, tls } = target;
  return clientsOnRoutes(
    transport === undefined ? addresses.map((one) => routeTo(one, tls)) : routesOf(transport),
    token,
  );
}

/** The URL of `http://host:port`, `https://host:port` or `host:port`. Undefined for other text. */
export function baseUrlOf(address: string): string | undefined {
  const url = URL.parse(/^[a-z]+:\/\//i.test(address) ? address : `http://${address}`);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) return undefined;
  const plain = url.username === "" && url.password === "" && url.search === "" && url.hash === "";
  return plain && url.pathname === "/" ? url.origin : undefined;
}

function routeTo(address: string, tls: ServiceTarget["tls"]): Route {
  const baseUrl = baseUrlOf(address);
  if (baseUrl === undefined)
    throw new RangeError(`address: "${address}" is invalid. Give host:port, http://host:port or https://host:port.`);
  const sessionManager = new ServiceConnection(baseUrl, tls);
  return {
    transport: createGrpcTransport({ baseUrl, sessionManager, interceptors: [traceContext] }),
    abort: (why) => sessionManager.abort(new ConnectError(why, Code.Unavailable)),
  };
}
