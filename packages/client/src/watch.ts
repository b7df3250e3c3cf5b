// `harborforge-agents-client/watch`: runs everywhere a Connect transport runs, browsers too. Nothing of Node is reachable from here,
// and no descriptor that a watch does not use.

export {
  AGENT_STATUSES,
  type AgentStatus,
  ERROR_REASONS,
  type ErrorReason,
  EXHAUST_REASONS,
  type ExhaustReason,
  TRANSITION_CAUSES,
  type TransitionCause,
} from "../../../common/contract/enum-names.ts";
export type { Unknown } from "../../../common/contract/enum-values.ts";
export { type CallCode, CallError, type CallErrorDetails } from "./connection/call-error.ts";
export { type CallSettings, typedTransport } from "./connection/routes.ts";
export type { Token } from "./connection/token.ts";
export {
  type AgentView,
  agentView,
  type ChangeView,
  type ExhaustionView,
  type TransitionView,
  transitionView,
} from "./views.ts";
export type { AgentCache, AgentCacheView } from "./watch/agent-cache.ts";
export { createAgentCache, type WatchTarget, watchAgents } from "./watch/browser-watch.ts";
export type { AgentFilter, SnapshotCause, WatchEvent, WatchOptions } from "./watch/watch-agents.ts";
