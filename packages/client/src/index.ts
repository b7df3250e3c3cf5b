// `harborforge-agents-client`: the library as programs on Node import it.

export {
  AGENT_STATUSES,
  type AgentStatus,
  ERROR_REASONS,
  type ErrorReason,
  EXHAUST_REASONS,
  type ExhaustReason,
  TRANSITION_CAUSES,
  type TransitionCause,
  type WorkingStatus,
} from "../../../common/contract/enum-names.ts";
export type { Unknown } from "../../../common/contract/enum-values.ts";
export { type CallCode, CallError, type CallErrorDetails } from "./connection/call-error.ts";
export { createServiceClients, type ServiceTarget } from "./connection/node-clients.ts";
export { type CallSettings, typedTransport } from "./connection/routes.ts";
export type { ConnectedClients, ServiceClients } from "./connection/service-clients.ts";
export type { Token } from "./connection/token.ts";
export type {
  AgentEvents,
  AgentHandle,
  AgentStatusEvent,
  ExhaustionReport,
  Presence,
  ReportOutcome,
  WaitOptions,
} from "./heartbeats/agent-handle.ts";
export {
  type ClientCloseOptions,
  createHeartbeatClient,
  type HeartbeatClient,
  type HeartbeatClientEvents,
  type HeartbeatClientOptions,
} from "./heartbeats/heartbeat-client.ts";
export type { HeartbeatConnection } from "./heartbeats/heartbeat-stream.ts";
export {
  REPORT_FAILURES,
  ReportError,
  type ReportErrorDetails,
  type ReportFailure,
} from "./heartbeats/report-error.ts";
export { exhaustionFromError, type ProviderExhaustion } from "./provider/exhaustion-from-error.ts";
export {
  type AgentView,
  agentView,
  type ChangeView,
  type ExhaustionView,
  type TransitionView,
  transitionView,
} from "./views.ts";
export type { AgentCache, AgentCacheView } from "./watch/agent-cache.ts";
export { createAgentCache, watchAgents } from "./watch/node-watch.ts";
export type { AgentFilter, SnapshotCause, WatchEvent, WatchOptions } from "./watch/watch-agents.ts";
export type { HeartbeatWorkerEvent, HeartbeatWorkerOptions } from "./worker/worker-heartbeats.ts";
