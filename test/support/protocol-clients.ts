import { Agent as HttpAgent } from "node:http";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
  Http2SessionManager,
} from "@connectrpc/connect-node";
import { afterAll, beforeAll } from "vitest";
import { ServerReflection } from "../../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { TokenService } from "../../gen/harborforge/agents/v1/token_service_pb.ts";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { WakeService } from "../../gen/harborforge/agents/v1/wake_service_pb.ts";
import { Health } from "../../gen/health/v1/health_pb.ts";
import type { Addresses } from "../../src/server.ts";
import { createGrpcJsTransport } from "./grpc-js-transport.ts";
import { casesOf } from "./sample.ts";
import type { RunningService } from "./service.ts";

/**
 * No call of a test takes as long. As always with Connect's clients, `timeoutMs: 0` is a call without a
 * deadline.
 */
const TIMEOUT_MS = 40_000;

interface OpenTransport {
  readonly transport: Transport;
  close(): void;
}

/** A way to call the service. */
export interface Protocol {
  readonly name: string;
  /** Whether it supports bidirectional streams. */
  readonly bidi: boolean;
  /** Whether fast tests use it. The sample has each framing (gRPC, gRPC-Web, Connect), format (JSON, binary) and version of HTTP. */
  readonly sample: boolean;
  open(addresses: Addresses): OpenTransport;
}

type Kind = typeof createConnectTransport | typeof createGrpcWebTransport;

function overHttp1(kind: Kind, format: object): Protocol["open"] {
  return ({ http }) => {
    const agent = new HttpAgent({ keepAlive: true });
    const transport = kind({
      baseUrl: `http://${http}`,
      httpVersion: "1.1",
      nodeOptions: { agent },
      defaultTimeoutMs: TIMEOUT_MS,
      ...format,
    });
    return { transport, close: () => agent.destroy() };
  };
}

function overHttp2(kind: Kind | typeof createGrpcTransport, format: object): Protocol["open"] {
  return ({ http }) => {
    const baseUrl = `http://${http}`;
    const sessionManager = new Http2SessionManager(baseUrl);
    const transport = kind({ baseUrl, httpVersion: "2", sessionManager, defaultTimeoutMs: TIMEOUT_MS, ...format });
    return { transport, close: () => sessionManager.abort() };
  };
}

const JSON_FORMAT = { useBinaryFormat: false };
const BINARY_FORMAT = { useBinaryFormat: true };

export const GRPC_JS: Protocol = {
  name: "grpc-js at the gRPC listener",
  bidi: true,
  sample: true,
  open: ({ grpc }) => {
    const transport = createGrpcJsTransport(grpc, TIMEOUT_MS);
    return { transport, close: () => transport.close() };
  },
};

/** Every way to call the service. */
export const PROTOCOLS: readonly Protocol[] = [
  GRPC_JS,
  {
    name: "Connect JSON over HTTP/1.1",
    bidi: false,
    sample: true,
    open: overHttp1(createConnectTransport, JSON_FORMAT),
  },
  {
    name: "Connect binary over HTTP/1.1",
    bidi: false,
    sample: false,
    open: overHttp1(createConnectTransport, BINARY_FORMAT),
  },
  {
    name: "Connect JSON over HTTP/2",
    bidi: true,
    sample: false,
    open: overHttp2(createConnectTransport, JSON_FORMAT),
  },
  {
    name: "Connect binary over HTTP/2",
    bidi: true,
    sample: false,
    open: overHttp2(createConnectTransport, BINARY_FORMAT),
  },
  {
    name: "gRPC at the Connect listener",
    bidi: true,
    sample: false,
    open: overHttp2(createGrpcTransport, BINARY_FORMAT),
  },
  {
    name: "gRPC-Web over HTTP/1.1",
    bidi: false,
    sample: false,
    open: overHttp1(createGrpcWebTransport, BINARY_FORMAT),
  },
  {
    name: "gRPC-Web over HTTP/2",
    bidi: true,
    sample: true,
    open: overHttp2(createGrpcWebTransport, BINARY_FORMAT),
  },
];

/** Reads as GET requests; all other calls as the same protocol by POST. */
const GET_PROTOCOLS: readonly Protocol[] = [
  {
    name: "Connect JSON by GET over HTTP/1.1",
    bidi: false,
    sample: true,
    open: overHttp1(createConnectTransport, { ...JSON_FORMAT, useHttpGet: true }),
  },
  {
    name: "Connect binary by GET over HTTP/2",
    bidi: true,
    sample: false,
    open: overHttp2(createConnectTransport, { ...BINARY_FORMAT, useHttpGet: true }),
  },
];

function tested(protocols: readonly Protocol[]): readonly Protocol[] {
  return casesOf(
    protocols.filter(({ sample }) => sample),
    protocols.filter(({ sample }) => !sample),
  );
}

/** The protocols that a `*.sampled.test.ts` tests in this run. */
export const TESTED_PROTOCOLS = tested(PROTOCOLS);
export const TESTED_GET_PROTOCOLS = tested(GET_PROTOCOLS);

/** The same, with a credential on every call. */
export function bearing(transport: Transport, token: string | undefined): Transport {
  if (token === undefined) return transport;
  const withToken = (header: HeadersInit | undefined): Headers => {
    const headers = new Headers(header);
    headers.set("authorization", `Bearer ${token}`);
    return headers;
  };
  return {
    unary: (method, signal, timeoutMs, header, input) =>
      transport.unary(method, signal, timeoutMs, withToken(header), input),
    stream: (method, signal, timeoutMs, header, input) =>
      transport.stream(method, signal, timeoutMs, withToken(header), input),
  };
}

export interface ProtocolClients {
  readonly users: Client<typeof UserService>;
  readonly agents: Client<typeof AgentService>;
  readonly tokens: Client<typeof TokenService>;
  readonly wakes: Client<typeof WakeService>;
  readonly health: Client<typeof Health>;
  readonly reflection: Client<typeof ServerReflection>;
  readonly reflectionAlpha: Client<typeof ServerReflectionAlpha>;
}

function clientsOf(transport: Transport): ProtocolClients {
  return {
    users: createClient(UserService, transport),
    agents: createClient(AgentService, transport),
    tokens: createClient(TokenService, transport),
    wakes: createClient(WakeService, transport),
    health: createClient(Health, transport),
    reflection: createClient(ServerReflection, transport),
    reflectionAlpha: createClient(ServerReflectionAlpha, transport),
  };
}

/** Clients that share one connection, or as many as HTTP/1.1 needs. */
export function openClients(protocol: Protocol, addresses: Addresses, token?: string): ProtocolClients & Disposable {
  const { transport, close } = protocol.open(addresses);
  return { ...clientsOf(bearing(transport, token)), [Symbol.dispose]: close };
}

/** Clients for the tests of a `describe`, opened before its first and closed after its last. */
export function useClients(protocol: Protocol, service: () => RunningService): ProtocolClients {
  let opened: OpenTransport | undefined;
  const current = (): Transport => {
    if (opened === undefined) throw new Error("clients can be called only while tests run");
    return opened.transport;
  };
  beforeAll(() => {
    opened = protocol.open(service().addresses);
  });
  afterAll(() => opened?.close());
  return clientsOf({
    unary: (method, signal, timeoutMs, header, input) => current().unary(method, signal, timeoutMs, header, input),
    stream: (method, signal, timeoutMs, header, input) => current().stream(method, signal, timeoutMs, header, input),
  });
}
