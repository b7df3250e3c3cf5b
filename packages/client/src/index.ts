// The client library, as programs on Node import it: `harborforge-agents/client`.

export type { Micros } from "../../../src/contract/time.ts";
export type { AgentStatus, ExhaustReason, TransitionCause } from "../../../src/contract/words.ts";
export type { AgentCache, AgentCacheView } from "./agent-cache.ts";
export type {
  AgentEvents,
  AgentHandle,
  AgentNews,
  ExhaustionReport,
  Presence,
  ReportOutcome,
  WaitOptions,
} from "./agent-handle.ts";
export { type CallCode, CallError } from "./call-error.ts";
export { exhaustionFromError, type ProviderExhaustion } from "./exhaustion-from-error.ts";
export {
  type ClientCloseOptions,
  createHeartbeatClient,
  type HeartbeatClient,
  type HeartbeatClientEvents,
  type HeartbeatClientOptions,
} from "./heartbeat-client.ts";
export type { HeartbeatConnection } from "./heartbeat-stream.ts";
export { createAgentCache, watchAgents } from "./node-watch.ts";
export { ReportError, type ReportFailure } from "./report-error.ts";
export type { ConnectedClients, ServiceClients } from "./service-clients.ts";
export type { Token } from "./token.ts";
export { createServiceClients, type ServiceTarget } from "./transport.ts";
export type { AgentView, ChangeView, ExhaustionView, TransitionView } from "./views.ts";
export type { AgentFilter, SnapshotCause, WatchEvent, WatchOptions } from "./watch-agents.ts";
export type { HeartbeatWorkerNews, HeartbeatWorkerOptions } from "./worker-beats.ts";
