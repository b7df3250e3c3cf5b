/**
 * Why a request was refused. The names are those of the contract's `ErrorReason` without its prefix; the table from
 * reasons to status codes is in the RPC layer, since codes are a matter of transport.
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
  | "TOKEN_NOT_FOUND";

/** One invalid field: its path in the request (`beats[3].agent_id`) and a sentence that says what is allowed. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

export interface RefusalDetails {
  /** Facts for machines; keys in lowerCamelCase, e.g. `agentId`, `recoveryAt` (RFC 3339), `revision`. */
  readonly metadata?: Readonly<Record<string, string>>;
  readonly violations?: readonly FieldViolation[];
  /** When trying again may help, in milliseconds from now. Absent: trying again does not help by itself. */
  readonly retryAfterMs?: number;
  /** For the log only; never sent to a client. */
  readonly cause?: unknown;
}

/** A refusal: a rule of the domain said no. Its message is written for the caller and says what to do. */
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

/** Refuses a request for one invalid field. `field` is its path as in the proto files, `description` begins with «must». */
export function invalidField(field: string, description: string): Refusal {
  return new Refusal("INVALID_FIELD", `${field}: ${description}`, { violations: [{ field, description }] });
}
