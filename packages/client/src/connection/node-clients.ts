import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { withoutUserInfo } from "../../../../common/secrets/redaction.ts";
import { createGrpcTransport } from "./grpc-transport.ts";
import { type Route, routesOf, typedTransport } from "./routes.ts";
import { type ConnectedClients, clientsOnRoutes } from "./service-clients.ts";
import { ServiceConnection, type TlsOptions } from "./service-connection.ts";
import { authorised, type Token } from "./token.ts";

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
  /**
   * How long the service may take to respond, in milliseconds: to a unary call without a `timeoutMs` of its own, with the first
   * message of a watch, and with the first acknowledgement of a heartbeat client. 0: no limit. Default: 10,000.
   */
  readonly timeoutMs?: number;
}

/**
 * Callers of the service, by gRPC unless `transport` uses another protocol. The first call connects. A call after a lost
 * connection connects again. Each call rejects with a CallError.
 *
 * @example
 * const service = createServiceClients({ address: "127.0.0.1:50051" });
 * const { agent } = await service.agents.getAgent({ key: { case: "agentId", value: "bob-1" } });
 * service.close();
 *
 * @throws RangeError for an invalid address or timeout, and without an address or transport
 */
export function createServiceClients(target: ServiceTarget): ConnectedClients {
  return clientsOnRoutes(
    routesTo(target).map((route) => ({ ...route, transport: typedTransport(route.transport, target) })),
  );
}

/** The same, with the errors of Connect and without deadlines, as in version 0.1. @throws RangeError */
export function createPlainClients(target: ServiceTarget): ConnectedClients {
  const { token } = target;
  return clientsOnRoutes(
    routesTo(target).map((route) =>
      token === undefined ? route : { ...route, transport: authorised(route.transport, token) },
    ),
  );
}

/** @throws RangeError for an invalid address */
function routesTo({
  address,
  addresses = address === undefined ? [] : [address],
  transport,
  tls,
}: ServiceTarget): readonly Route[] {
  return transport === undefined ? addresses.map((one) => routeTo(one, tls)) : routesOf(transport);
}

/** The URL of `http://host:port`, `https://host:port` or `host:port`. Undefined for other text. */
export function baseUrlOf(address: string): string | undefined {
  const text = /^[a-z]+:\/\//i.test(address) ? address : `http://${address}`;
  if (!URL.canParse(text)) return undefined;
  const url = new URL(text);
  if (url.protocol !== "http:" && url.protocol !== "https:") return undefined;
  const plain = url.username === "" && url.password === "" && url.search === "" && url.hash === "";
  return plain && url.pathname === "/" ? url.origin : undefined;
}

function routeTo(address: string, tls: ServiceTarget["tls"]): Route {
  const baseUrl = baseUrlOf(address);
  if (baseUrl === undefined)
    throw new RangeError(
      `address: "${withoutUserInfo(address)}" is invalid. Give host:port, http://host:port or https://host:port.`,
    );
  const connection = new ServiceConnection(baseUrl, tls);
  return {
    transport: createGrpcTransport(connection),
    abort: (why) => connection.abort(new ConnectError(why, Code.Unavailable)),
  };
}
