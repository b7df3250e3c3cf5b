// `harborforge-agents-client`: the library as programs on Node import it.

export type { AgentStatus, ExhaustReason, TransitionCause } from "../../../common/contract/enum-names.ts";
export type { Micros } from "../../../common/contract/time.ts";
export { type CallCode, CallError } from "./connection/call-error.ts";
export { createServiceClients, type ServiceTarget } from "./connection/node-clients.ts";
export type { ConnectedClients, ServiceClients } from "./connection/service-clients.ts";
export type { Token } from "./connection/token.ts";
export type {
  AgentEvents,
  AgentHandle,
  /** @deprecated Use AgentStatusEvent. */
  AgentStatusEvent as AgentNews,
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
export { ReportError, type ReportFailure } from "./heartbeats/report-error.ts";
export { exhaustionFromError, type ProviderExhaustion } from "./provider/exhaustion-from-error.ts";
export type { AgentView, ChangeView, ExhaustionView, TransitionView } from "./views.ts";
export type { AgentCache, AgentCacheView } from "./watch/agent-cache.ts";
export { createAgentCache, watchAgents } from "./watch/node-watch.ts";
export type { AgentFilter, SnapshotCause, WatchEvent, WatchOptions } from "./watch/watch-agents.ts";
export type {
  HeartbeatWorkerEvent,
  /** @deprecated Use HeartbeatWorkerEvent. */
  HeartbeatWorkerEvent as HeartbeatWorkerNews,
  HeartbeatWorkerOptions,
} from "./worker/worker-heartbeats.ts";
