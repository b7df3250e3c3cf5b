import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import {
  AgentService,
  type WatchAgentsRequestSchema,
  type WatchAgentsResponse,
} from "../../../../gen/watch/harborforge/agents/v1/agent_service_pb.ts";
import { CALL_TIMEOUT_MS, checkTimeout } from "../connection/call-timeout.ts";
import { routesOf, Turns, typedTransport } from "../connection/routes.ts";
import type { Token } from "../connection/token.ts";
import { type AgentCache, cacheOf } from "./agent-cache.ts";
import { type WatchClients, type WatchEvent, type WatchOptions, watchThrough } from "./watch-agents.ts";

/** The connection to the service, without Node. */
export interface WatchTarget {
  /** A Connect transport, for example of connect-web, or several that lead to different addresses. */
  readonly transport: Transport | readonly Transport[];
  /** Sent with every call as `authorization: Bearer …`. A function is called before each call. */
  readonly token?: Token;
  /** How long the first message of a watch may take, in milliseconds; 0: no limit. Default: 10,000. */
  readonly timeoutMs?: number;
}

/**
 * Watches agents: a snapshot, then every change once. It resumes after lost connections and server stops, with a new snapshot if
 * the service no longer keeps the changes since. It runs everywhere its transport does.
 *
 * @example
 * const transport = createConnectTransport({ baseUrl: "https://agents.example" }); // of @connectrpc/connect-web
 * for await (const event of watchAgents({ transport, filter: { statuses: ["idle"] } })) {
 *   if (event.kind === "snapshot") console.log(event.agents.length, "agents are idle");
 * }
 *
 * @throws CallError if the service rejects the watch for good; RangeError without a transport, and for an invalid timeout
 */
export function watchAgents(options: WatchTarget & WatchOptions): AsyncGenerator<WatchEvent, void> {
  return watchThrough(watchClients(options), options);
}

/**
 * Keeps the current state of all agents that pass a filter in memory.
 *
 * @example
 * const agents = createAgentCache({ transport, filter: { clawIdentifiers: ["claw-1"] } });
 * const idle = await agents.waitFor(({ list }) => list((agent) => agent.status === "idle")[0]);
 *
 * @throws RangeError without a transport, and for an invalid timeout
 */
export function createAgentCache(options: WatchTarget & Omit<WatchOptions, "from" | "signal">): AgentCache {
  const { timeoutMs = CALL_TIMEOUT_MS } = options;
  return cacheOf((signal) => watchAgents({ ...options, from: "snapshot", signal }), checkTimeout(timeoutMs));
}

/** The callers of a watch, by the transports of the caller. @throws RangeError without a transport */
export function watchClients({ transport, token }: WatchTarget): WatchClients {
  const turns = new Turns(routesOf(transport), (one) => typedTransport(one, { token }));
  return {
    agents: { watchAgents: (request, { signal } = {}) => watchOver(turns.current, request, signal) },
    reconnect: () => turns.next(),
  };
}

/** As `createClient` of Connect does, which brings the code of all other kinds of calls. */
async function* watchOver(
  transport: Transport,
  request: MessageInitShape<typeof WatchAgentsRequestSchema>,
  signal: AbortSignal | undefined,
): AsyncGenerator<WatchAgentsResponse, void> {
  const requests = (async function* () {
    yield request;
  })();
  const { message } = await transport.stream(AgentService.method.watchAgents, signal, undefined, undefined, requests);
  yield* message;
}
