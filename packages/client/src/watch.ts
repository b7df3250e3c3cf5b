// `harborforge-agents-client/watch`: runs everywhere a Connect transport runs, browsers too. Nothing of Node is reachable from here.

export { type CallCode, CallError } from "./connection/call-error.ts";
export type { Token } from "./connection/token.ts";
export type { AgentView, ChangeView, ExhaustionView, TransitionView } from "./views.ts";
export type { AgentCache, AgentCacheView } from "./watch/agent-cache.ts";
export { createAgentCache, type WatchTarget, watchAgents } from "./watch/browser-watch.ts";
export type { AgentFilter, SnapshotCause, WatchEvent, WatchOptions } from "./watch/watch-agents.ts";
