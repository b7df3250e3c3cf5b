import type * as current from "harborforge-agents-client";
import type { Micros } from "../../common/contract/time.ts";

// The views of version 0.1: instants are microseconds since 1970.

export type AgentView = current.AgentView<Micros>;
export type ChangeView = current.ChangeView<Micros>;
export type ExhaustionView = current.ExhaustionView<Micros>;
export type TransitionView = current.TransitionView<Micros>;
export type AgentCache = current.AgentCache<AgentView, ChangeView>;
export type AgentCacheView = current.AgentCacheView<AgentView>;
export type WatchEvent = current.WatchEvent<AgentView, ChangeView>;
export type WatchOptions = Omit<current.WatchOptions, "timeoutMs">;
export type { Micros } from "../../common/contract/time.ts";

/** Version 0.1 waited without limit. */
export const NO_TIMEOUT = { timeoutMs: 0 } as const;
