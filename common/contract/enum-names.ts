// The names of the contract's enum values, for the service and the client library. This file imports nothing.

/** A value of a newer version, which this program does not know. Do not wake an agent in such a status. */
export type Unknown = "unknown";

export const AGENT_STATUSES = ["idle", "on_call", "busy", "exhausted", "offline"] as const;
export type AgentStatus = (typeof AGENT_STATUSES)[number];

/** The statuses in which an agent can work. An agent in one of them has no exhaustion. */
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
  "wake",
  "stalled",
  "progressed",
] as const;
export type TransitionCause = (typeof TRANSITION_CAUSES)[number];

/** Why the service rejects a call or a heartbeat: the contract's ErrorReason without its prefix, in the order of its numbers from 1. */
export const ERROR_REASONS = [
  "INVALID_FIELD",
  "INVALID_PAGE_TOKEN",
  "USER_NOT_FOUND",
  "AGENT_NOT_FOUND",
  "USERNAME_TAKEN",
  "EMAIL_TAKEN",
  "AGENT_ID_TAKEN",
  "USER_HAS_AGENT",
  "REVISION_MISMATCH",
  "AGENT_OFFLINE",
  "AGENT_EXHAUSTED",
  "SESSION_SUPERSEDED",
  "WRONG_CLAW",
  "REPORT_OUTDATED",
  "REVISION_COMPACTED",
  "REVISION_IN_FUTURE",
  "WATCHER_TOO_SLOW",
  "LIMIT_EXCEEDED",
  "DRAINING",
  "DATABASE_UNAVAILABLE",
  "PERMISSION_DENIED",
  "UNAUTHENTICATED",
  "HTTP2_REQUIRED",
  "REQUEST_ID_REUSED",
  "TOKEN_NOT_FOUND",
  "AGENT_BUSY",
  "AGENT_ON_CALL",
  "AGENT_PAUSED",
  "WAKES_NOT_TAKEN",
  "WAKE_EXPIRED",
  "WAKE_NOT_FOUND",
  "WAKE_ID_TAKEN",
  "OFFER_OUTDATED",
  "WAKE_ENDED",
  "WAKE_QUEUE_FULL",
  "WAKES_LIMITED",
] as const;
export type ErrorReason = (typeof ERROR_REASONS)[number];

/** How a change moves an agent relative to the filter of a watch. */
export type ChangeType = "entered" | "updated" | "left";

/**
 * Why a stream sends beats for an agent that it does not hold. `first`: its program claims the agent for the first
 * time. `anew`: its program claims the agent again after it lost it. `resume`: the stream resumes a session of an
 * earlier stream of its process.
 */
export const SESSION_STARTS = ["first", "anew", "resume"] as const;
export type SessionStart = (typeof SESSION_STARTS)[number];

export const WAKE_STATES = [
  "queued",
  "offered",
  "accepted",
  "finished",
  "declined",
  "lapsed",
  "expired",
  "cancelled",
  "abandoned",
] as const;
export type WakeState = (typeof WAKE_STATES)[number];

/** The status that a wake gives its agent while it is offered. */
export type WakeClaim = Extract<WorkingStatus, "on_call" | "busy">;

/** What the server does with a wake whose agent cannot be woken. */
export const IF_UNAVAILABLE = ["refuse", "queue"] as const;
export type IfUnavailable = (typeof IF_UNAVAILABLE)[number];

export const WAKE_REASONS = [
  "busy",
  "on_call",
  "exhausted",
  "offline",
  "leaving",
  "paused",
  "no_answer",
  "unreported",
  "unsuitable",
  "service",
  "moved",
  "deleted",
  "no_session",
  "suspect",
  "limited",
] as const;
export type WakeReason = (typeof WAKE_REASONS)[number];

/** The reasons with which an agent may decline. */
export const DECLINE_REASONS = [
  "busy",
  "on_call",
  "exhausted",
  "leaving",
  "unsuitable",
] as const satisfies readonly WakeReason[];
export type DeclineReason = (typeof DECLINE_REASONS)[number];

export const WAKE_OUTCOMES = ["succeeded", "failed", "stopped"] as const;
export type WakeOutcome = (typeof WAKE_OUTCOMES)[number];

export const WAKE_REPLY_TYPES = ["accept", "decline", "working", "finished"] as const;
export type WakeReplyType = (typeof WAKE_REPLY_TYPES)[number];

/**
 * An exhaustion as an agent or a service reports it: with the provider's deadline, with the provider's delay, or with
 * neither.
 */
export interface ReportedExhaustion {
  readonly reason: ExhaustReason;
  /** The provider's deadline: an instant in microseconds since 1970, as `Micros`. */
  readonly recoveryAt?: number;
  /** The provider's delay in milliseconds. */
  readonly retryAfterMs?: number;
}

/** The service rejects a deadline of an exhaustion that is further ahead: such a deadline is a mistake of units. */
export const FURTHEST_RECOVERY_MS = 366 * 24 * 3_600_000;
