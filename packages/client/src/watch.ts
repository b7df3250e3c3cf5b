// What of the client runs wherever a transport of Connect's does, browsers too: nothing of Node is reachable from here.

export { type CallCode, CallError } from "./connection/call-error.ts";
export type { Token } from "./connection/token.ts";
export type { AgentView, ChangeView, ExhaustionView, TransitionView } from "./views.ts";
export type { AgentCache, AgentCacheView } from "./watch/agent-cache.ts";
export { createAgentCache, type WatchTarget, watchAgents } from "./watch/browser-watch.ts";
export type { AgentFilter, SnapshotCause, WatchEvent, WatchOptions } from "./watch/watch-agents.ts";
