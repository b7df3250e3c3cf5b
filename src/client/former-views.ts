import type * as current from "harborforge-agents-client";
// The views of version 0.1.

/** An instant in microseconds since 1970. */
export type Micros = number;

export type AgentView = current.AgentView<Micros>;
export type ChangeView = current.ChangeView<Micros>;
export type ExhaustionView = current.ExhaustionView<Micros>;
export type TransitionView = current.TransitionView<Micros>;
export type AgentCache = current.AgentCache<AgentView, ChangeView>;
export type AgentCacheView = current.AgentCacheView<AgentView>;
export type WatchEvent = current.WatchEvent<AgentView, ChangeView>;
export type WatchOptions = Omit<current.WatchOptions, "timeoutMs">;

/** Version 0.1 waited without limit. */
export const NO_TIMEOUT = { timeoutMs: 0 } as const;
