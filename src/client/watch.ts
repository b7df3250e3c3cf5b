// Deprecated: programs import `harborforge-agents-client/watch`. This entry of the service's package goes with the next release. Until
// then it has the interface of version 0.1.

import { cacheOf, exactViews, watchAs, watchClients } from "harborforge-agents-client/internal/watch";
import type * as current from "harborforge-agents-client/watch";
import { type AgentCache, NO_TIMEOUT, type WatchEvent, type WatchOptions } from "./former-views.ts";

export {
  type AgentFilter,
  type CallCode,
  CallError,
  type SnapshotCause,
  type Token,
} from "harborforge-agents-client/watch";
export type {
  AgentCache,
  AgentCacheView,
  AgentView,
  ChangeView,
  ExhaustionView,
  TransitionView,
  WatchEvent,
  WatchOptions,
} from "./former-views.ts";

export type WatchTarget = Omit<current.WatchTarget, "timeoutMs">;

/** @deprecated Use `watchAgents` of `harborforge-agents-client/watch`. */
export function watchAgents(options: WatchTarget & WatchOptions): AsyncGenerator<WatchEvent, void> {
  return watchAs(exactViews, watchClients(options), { ...options, ...NO_TIMEOUT });
}

/** @deprecated Use `createAgentCache` of `harborforge-agents-client/watch`. */
export function createAgentCache(options: WatchTarget & Omit<WatchOptions, "from" | "signal">): AgentCache {
  const watch = (signal: AbortSignal) => watchAgents({ ...options, from: "snapshot", signal });
  return cacheOf(watch, NO_TIMEOUT.timeoutMs);
}
