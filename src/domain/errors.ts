/**
 * Why a request was rejected. The names are those of the contract's `ErrorReason` without its prefix. The RPC layer
 * maps reasons to status codes.
 */
export type Reason =
  | "INVALID_FIELD"
  | "INVALID_PAGE_TOKEN"
  | "USER_NOT_FOUND"
  | "AGENT_NOT_FOUND"
  | "USERNAME_TAKEN"
  | "EMAIL_TAKEN"
  | "AGENT_ID_TAKEN"
  | "USER_HAS_AGENT"
  | "REVISION_MISMATCH"
  | "AGENT_OFFLINE"
  | "AGENT_EXHAUSTED"
  | "SESSION_SUPERSEDED"
  | "WRONG_CLAW"
  | "REPORT_OUTDATED"
  | "REVISION_COMPACTED"
  | "REVISION_IN_FUTURE"
  | "WATCHER_TOO_SLOW"
  | "LIMIT_EXCEEDED"
  | "DRAINING"
  | "DATABASE_UNAVAILABLE"
  | "PERMISSION_DENIED"
  | "UNAUTHENTICATED"
  | "HTTP2_REQUIRED"
  | "REQUEST_ID_REUSED"
  | "TOKEN_NOT_FOUND"
  | "AGENT_BUSY"
  | "AGENT_ON_CALL"
  | "AGENT_PAUSED"
  | "WAKES_NOT_TAKEN"
  | "WAKE_EXPIRED"
  | "WAKE_NOT_FOUND"
  | "WAKE_ID_TAKEN"
  | "OFFER_OUTDATED"
  | "WAKE_ENDED"
  | "WAKE_QUEUE_FULL"
  | "WAKES_LIMITED";

/** One invalid field: its path in the request (`beats[3].agent_id`), and a sentence about the allowed values. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

export interface RefusalDetails {
  /** For programs: keys in lowerCamelCase, e.g. `agentId`, `recoveryAt` (RFC 3339), `revision`. */
  readonly metadata?: Readonly<Record<string, string>>;
  readonly violations?: readonly FieldViolation[];
  /** The delay before a retry, in milliseconds. Absent: a retry alone does not help. */
  readonly retryAfterMs?: number;
  /** For the log only; the service never sends it to a client. */
  readonly cause?: unknown;
}

/** A rule rejected a request. The message is for the caller: what is wrong, and what to do. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly reason: Reason;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly FieldViolation[];
  readonly retryAfterMs: number | undefined;

  constructor(reason: Reason, message: string, details: RefusalDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.reason = reason;
    this.metadata = details.metadata ?? {};
    this.violations = details.violations ?? [];
    this.retryAfterMs = details.retryAfterMs;
  }
}

/**
 * Rejects a request with one invalid field.
 *
 * @param field its path as in the proto files
 * @param description begins with "must"
 */
export function invalidField(field: string, description: string): Refusal {
  return new Refusal("INVALID_FIELD", `${field}: ${description}`, { violations: [{ field, description }] });
}
