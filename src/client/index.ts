// Deprecated: programs import `harborforge-agents-client`. This entry of the service's package goes with the next release. Until then it
// has the interface of version 0.1: instants are microseconds, and calls reject with the errors of Connect. docs/migrating.md lists the
// differences.
import type * as current from "harborforge-agents-client";
import { cacheOf, closingAfter, createPlainClients, exactViews, watchAs } from "harborforge-agents-client/internal";
import { type AgentCache, NO_TIMEOUT, type WatchEvent, type WatchOptions } from "./former-views.ts";

export {
  type AgentFilter,
  type AgentStatus,
  type CallCode,
  CallError,
  type ClientCloseOptions,
  type ConnectedClients,
  type ExhaustionReport,
  type ExhaustReason,
  exhaustionFromError,
  type HeartbeatClientEvents,
  type HeartbeatConnection,
  type HeartbeatWorkerEvent,
  type HeartbeatWorkerEvent as HeartbeatWorkerNews,
  type HeartbeatWorkerOptions,
  type Presence,
  type ProviderExhaustion,
  type ReportOutcome,
  type ServiceClients,
  type SnapshotCause,
  type Token,
  type TransitionCause,
  type WaitOptions,
} from "harborforge-agents-client";
export { ReportError, type ReportFailure } from "./former-errors.ts";
export {
  type AgentEvents,
  type AgentHandle,
  type AgentStatusEvent,
  type AgentStatusEvent as AgentNews,
  createHeartbeatClient,
  type HeartbeatClient,
  type HeartbeatClientOptions,
} from "./former-heartbeats.ts";
export type {
  AgentCache,
  AgentCacheView,
  AgentView,
  ChangeView,
  ExhaustionView,
  Micros,
  TransitionView,
  WatchEvent,
  WatchOptions,
} from "./former-views.ts";

export type ServiceTarget = Omit<current.ServiceTarget, "timeoutMs">;

/** @deprecated Use `createServiceClients` of `harborforge-agents-client`. */
export function createServiceClients(target: ServiceTarget): current.ConnectedClients {
  return createPlainClients(target);
}

/** @deprecated Use `watchAgents` of `harborforge-agents-client`. */
export function watchAgents(options: ServiceTarget & WatchOptions): AsyncGenerator<WatchEvent, void> {
  const clients = createPlainClients(options);
  return closingAfter(clients, watchAs(exactViews, clients, { ...options, ...NO_TIMEOUT }));
}

/** @deprecated Use `createAgentCache` of `harborforge-agents-client`. */
export function createAgentCache(options: ServiceTarget & Omit<WatchOptions, "from" | "signal">): AgentCache {
  const watch = (signal: AbortSignal) => watchAgents({ ...options, from: "snapshot", signal });
  return cacheOf(watch, NO_TIMEOUT.timeoutMs);
}
