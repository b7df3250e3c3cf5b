import { CALL_TIMEOUT_MS, checkTimeout } from "../connection/call-timeout.ts";
import { createServiceClients, type ServiceTarget } from "../connection/node-clients.ts";
import { type AgentCache, cacheOf } from "./agent-cache.ts";
import { type WatchEvent, type WatchOptions, watchThrough } from "./watch-agents.ts";

/**
 * Watches agents: a snapshot, then every change once. It resumes after lost connections and server stops, with a new snapshot if
 * the service no longer keeps the changes since. It connects when the caller
 * starts to read, and ends when the caller stops.
 *
 * @example
 * for await (const event of watchAgents({ address: "127.0.0.1:50051", filter: { statuses: ["idle"] } })) {
 *   if (event.kind === "snapshot") console.log(event.agents.length, "agents are idle");
 *   if (event.kind === "changes") for (const { transition } of event.changes) console.log(transition);
 * }
 *
 * @throws CallError if the service rejects the watch for good; RangeError for an invalid address or timeout
 */
export function watchAgents(options: ServiceTarget & WatchOptions): AsyncGenerator<WatchEvent, void> {
  const clients = createServiceClients(options);
  return closingAfter(clients, watchThrough(clients, options));
}

/**
 * Keeps the current state of all agents that pass a filter in memory.
 *
 * @example
 * const agents = createAgentCache({ address: "127.0.0.1:50051", filter: { clawIdentifiers: ["claw-1"] } });
 * await agents.waitFor(({ get }) => get("bob-1")?.status === "idle", { signal: AbortSignal.timeout(60_000) });
 * await agents.close();
 *
 * @throws RangeError for an invalid address or timeout
 */
export function createAgentCache(options: ServiceTarget & Omit<WatchOptions, "from" | "signal">): AgentCache {
  const { timeoutMs = CALL_TIMEOUT_MS } = options;
  return cacheOf((signal) => watchAgents({ ...options, from: "snapshot", signal }), checkTimeout(timeoutMs));
}

/** The same events. Closes the clients after the last one. */
export async function* closingAfter<Event>(
  clients: { close(): void },
  events: AsyncIterable<Event>,
): AsyncGenerator<Event, void> {
  try {
    yield* events;
  } finally {
    clients.close();
  }
}
