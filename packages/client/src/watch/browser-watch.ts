import type { Transport } from "@connectrpc/connect";
import { clientsOnRoutes, routesOf } from "../connection/service-clients.ts";
import type { Token } from "../connection/token.ts";
import { type AgentCache, cacheOf } from "./agent-cache.ts";
import { type WatchEvent, type WatchOptions, watchThrough } from "./watch-agents.ts";

/** The connection to the service, without Node. */
export interface WatchTarget {
  /** A Connect transport, for example of connect-web, or several that lead to different addresses. */
  readonly transport: Transport | readonly Transport[];
  /** Sent with every call as `authorization: Bearer …`. A function is called before each call. */
  readonly token?: Token;
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
 * @throws CallError if the service rejects the watch for good
 */
export function watchAgents(options: WatchTarget & WatchOptions): AsyncGenerator<WatchEvent, void> {
  return watchThrough(clientsOnRoutes(routesOf(options.transport), options.token), options);
}

/**
 * Keeps the current state of all agents that pass a filter in memory.
 *
 * @example
 * await using agents = createAgentCache({ transport, filter: { clawIdentifiers: ["claw-1"] } });
 * const idle = await agents.waitFor(({ list }) => list((agent) => agent.status === "idle")[0]);
 */
export function createAgentCache(options: WatchTarget & Omit<WatchOptions, "from" | "signal">): AgentCache {
  return cacheOf((signal) => watchAgents({ ...options, from: "snapshot", signal }));
}
