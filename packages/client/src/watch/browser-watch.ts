import type { Transport } from "@connectrpc/connect";
import { clientsOnRoutes, routesOf } from "../connection/service-clients.ts";
import type { Token } from "../connection/token.ts";
import { type AgentCache, cacheOf } from "./agent-cache.ts";
import { type WatchEvent, type WatchOptions, watchThrough } from "./watch-agents.ts";

/** How to get to the service where there is no Node. */
export interface WatchTarget {
  /** A transport of Connect's, such as connect-web's, or several that lead to different addresses. */
  readonly transport: Transport | readonly Transport[];
  /** Goes with every call as `authorization: Bearer …`. A function is asked before each call. */
  readonly token?: Token;
}

/**
 * Watches agents: a snapshot, then every change once. Goes on by itself over lost connections and stopping servers, and
 * from a new snapshot where the service no longer keeps what came after. Runs wherever its transport does.
 *
 * @example
 * const transport = createConnectTransport({ baseUrl: "https://agents.example" }); // of @connectrpc/connect-web
 * for await (const event of watchAgents({ transport, filter: { statuses: ["idle"] } })) {
 *   if (event.kind === "snapshot") console.log(event.agents.length, "agents are idle");
 * }
 *
 * @throws CallError when the service refuses the watch in a way that stays
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
