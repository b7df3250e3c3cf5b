import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { type ConnectedClients, clientsOnRoutes, type Route, routesOf } from "./service-clients.ts";
import { ServiceConnection, type TlsOptions } from "./service-connection.ts";
import type { Token } from "./token.ts";

export type { ConnectedClients, ServiceClients } from "./service-clients.ts";

/** Where the service is, and how to get there. Exactly one of `address`, `addresses` and `transport` is to be given. */
export interface ServiceTarget {
  /** `http://host:port`, `https://host:port` or `host:port`, of either listener. */
  readonly address?: string;
  /** Several of them: when one refuses, drains or falls silent, the next is taken. */
  readonly addresses?: readonly string[];
  /**
   * A transport of Connect's, or several that lead to different addresses: for protocols, proxies and libraries of your
   * own. Its connection is yours: a dead one is left for the next call, and never broken.
   */
  readonly transport?: Transport | readonly Transport[];
  /** Goes with every call as `authorization: Bearer …`. A function is asked before each call. */
  readonly token?: Token;
  /** Certificates for `https` addresses, as `node:tls` takes them. */
  readonly tls?: TlsOptions;
}

/**
 * Callers of the service, by gRPC unless `transport` says otherwise. Nothing is connected before the first call, and a
 * lost connection is opened anew by the next one.
 *
 * @example
 * using service = createServiceClients({ address: "127.0.0.1:50051" });
 * const { agent } = await service.agents.getAgent({ key: { case: "agentId", value: "bob-1" } });
 *
 * @throws RangeError for what is no address, and without any
 */
export function createServiceClients(target: ServiceTarget): ConnectedClients {
  const { address, addresses = address === undefined ? [] : [address], transport, token, tls } = target;
  return clientsOnRoutes(
    transport === undefined ? addresses.map((one) => routeTo(one, tls)) : routesOf(transport),
    token,
  );
}

/** The URL meant by `http://host:port`, `https://host:port` or `host:port`. Undefined for what names no such place. */
export function baseUrlOf(address: string): string | undefined {
  const url = URL.parse(/^[a-z]+:\/\//i.test(address) ? address : `http://${address}`);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) return undefined;
  const plain = url.username === "" && url.password === "" && url.search === "" && url.hash === "";
  return plain && url.pathname === "/" ? url.origin : undefined;
}

function routeTo(address: string, tls: ServiceTarget["tls"]): Route {
  const baseUrl = baseUrlOf(address);
  if (baseUrl === undefined) throw new RangeError(`not the address of a service: ${address}`);
  const sessionManager = new ServiceConnection(baseUrl, tls);
  return {
    transport: createGrpcTransport({ baseUrl, sessionManager }),
    abort: (why) => sessionManager.abort(new ConnectError(why, Code.Unavailable)),
  };
}
