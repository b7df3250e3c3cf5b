// What of the client runs wherever a transport of Connect's does, browsers too: nothing of Node is reachable from here.
export type { AgentCache, AgentCacheView } from "./agent-cache.ts";
export { createAgentCache, type WatchTarget, watchAgents } from "./browser-watch.ts";
export { type CallCode, CallError } from "./call-error.ts";
export type { Token } from "./token.ts";
export type { AgentView, ChangeView, ExhaustionView, TransitionView } from "./views.ts";
export type { AgentFilter, SnapshotCause, WatchEvent, WatchOptions } from "./watch-agents.ts";
