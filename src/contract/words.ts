// The words of the contract's enums, as the service and the client library use them. Nothing is imported here.

export const AGENT_STATUSES = ["idle", "on_call", "busy", "exhausted", "offline"] as const;
export type AgentStatus = (typeof AGENT_STATUSES)[number];

/** The statuses in which an agent can take or do work; an agent in one of them has no exhaustion. */
export type WorkingStatus = "idle" | "on_call" | "busy";

export const EXHAUST_REASONS = ["rate_limit", "billing"] as const;
export type ExhaustReason = (typeof EXHAUST_REASONS)[number];

export const TRANSITION_CAUSES = [
  "created",
  "report",
  "service",
  "lease_expired",
  "goodbye",
  "recovery",
  "moved",
  "deleted",
  "heartbeat",
] as const;
export type TransitionCause = (typeof TRANSITION_CAUSES)[number];

/** How an agent moves relative to the filter of a watch. */
export type ChangeType = "entered" | "updated" | "left";

/**
 * Why a stream beats for an agent that it does not hold: its program claims the agent for the first time, claims it anew
 * after it lost it, or the stream resumes a session of an earlier stream of its process.
 */
export const SESSION_STARTS = ["first", "anew", "resume"] as const;
export type SessionStart = (typeof SESSION_STARTS)[number];

/** A report of an exhaustion: with the provider's deadline, with the provider's delay, or with neither. */
export interface ReportedExhaustion {
  readonly reason: ExhaustReason;
  /** The provider's deadline: an instant in microseconds since 1970, as `Micros`. */
  readonly recoveryAt?: number;
  /** The provider's delay in milliseconds. */
  readonly retryAfterMs?: number;
}

/** The furthest deadline of an exhaustion that the service accepts: one further ahead is a mistake of units. */
export const FURTHEST_RECOVERY_MS = 366 * 24 * 3_600_000;
