import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { CodeSchema } from "../../../gen/google/rpc/code_pb.ts";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../../../gen/google/rpc/error_details_pb.ts";
import { ErrorReason, ErrorReasonSchema } from "../../../gen/harborforge/agents/v1/error_reason_pb.ts";
import { type FieldViolation, type Reason, Refusal } from "../../domain/errors.ts";
import { explain, INTERNAL_ERROR } from "./library-errors.ts";

/** The `domain` of every `ErrorInfo` of this service. */
export const ERROR_DOMAIN = "harborforge.agents";

interface Row {
  readonly code: Code;
  readonly errorReason: ErrorReason;
}

/** Maps all reasons to status codes. It does not compile if a reason is missing. */
const ROWS: Readonly<Record<Reason, Row>> = {
  INVALID_FIELD: { code: Code.InvalidArgument, errorReason: ErrorReason.INVALID_FIELD },
  INVALID_PAGE_TOKEN: { code: Code.InvalidArgument, errorReason: ErrorReason.INVALID_PAGE_TOKEN },
  USER_NOT_FOUND: { code: Code.NotFound, errorReason: ErrorReason.USER_NOT_FOUND },
  AGENT_NOT_FOUND: { code: Code.NotFound, errorReason: ErrorReason.AGENT_NOT_FOUND },
  USERNAME_TAKEN: { code: Code.AlreadyExists, errorReason: ErrorReason.USERNAME_TAKEN },
  EMAIL_TAKEN: { code: Code.AlreadyExists, errorReason: ErrorReason.EMAIL_TAKEN },
  AGENT_ID_TAKEN: { code: Code.AlreadyExists, errorReason: ErrorReason.AGENT_ID_TAKEN },
  USER_HAS_AGENT: { code: Code.AlreadyExists, errorReason: ErrorReason.USER_HAS_AGENT },
  REVISION_MISMATCH: { code: Code.Aborted, errorReason: ErrorReason.REVISION_MISMATCH },
  AGENT_OFFLINE: { code: Code.FailedPrecondition, errorReason: ErrorReason.AGENT_OFFLINE },
  AGENT_EXHAUSTED: { code: Code.FailedPrecondition, errorReason: ErrorReason.AGENT_EXHAUSTED },
  SESSION_SUPERSEDED: { code: Code.Aborted, errorReason: ErrorReason.SESSION_SUPERSEDED },
  WRONG_CLAW: { code: Code.FailedPrecondition, errorReason: ErrorReason.WRONG_CLAW },
  REPORT_OUTDATED: { code: Code.Aborted, errorReason: ErrorReason.REPORT_OUTDATED },
  REVISION_COMPACTED: { code: Code.OutOfRange, errorReason: ErrorReason.REVISION_COMPACTED },
  REVISION_IN_FUTURE: { code: Code.OutOfRange, errorReason: ErrorReason.REVISION_IN_FUTURE },
  WATCHER_TOO_SLOW: { code: Code.ResourceExhausted, errorReason: ErrorReason.WATCHER_TOO_SLOW },
  LIMIT_EXCEEDED: { code: Code.ResourceExhausted, errorReason: ErrorReason.LIMIT_EXCEEDED },
  DRAINING: { code: Code.Unavailable, errorReason: ErrorReason.DRAINING },
  DATABASE_UNAVAILABLE: { code: Code.Unavailable, errorReason: ErrorReason.DATABASE_UNAVAILABLE },
  PERMISSION_DENIED: { code: Code.PermissionDenied, errorReason: ErrorReason.PERMISSION_DENIED },
  UNAUTHENTICATED: { code: Code.Unauthenticated, errorReason: ErrorReason.UNAUTHENTICATED },
  HTTP2_REQUIRED: { code: Code.Unimplemented, errorReason: ErrorReason.HTTP2_REQUIRED },
  REQUEST_ID_REUSED: { code: Code.InvalidArgument, errorReason: ErrorReason.REQUEST_ID_REUSED },
  TOKEN_NOT_FOUND: { code: Code.NotFound, errorReason: ErrorReason.TOKEN_NOT_FOUND },
  AGENT_BUSY: { code: Code.FailedPrecondition, errorReason: ErrorReason.AGENT_BUSY },
  AGENT_ON_CALL: { code: Code.FailedPrecondition, errorReason: ErrorReason.AGENT_ON_CALL },
  AGENT_PAUSED: { code: Code.FailedPrecondition, errorReason: ErrorReason.AGENT_PAUSED },
  WAKES_NOT_TAKEN: { code: Code.FailedPrecondition, errorReason: ErrorReason.WAKES_NOT_TAKEN },
  WAKE_EXPIRED: { code: Code.FailedPrecondition, errorReason: ErrorReason.WAKE_EXPIRED },
  WAKE_NOT_FOUND: { code: Code.NotFound, errorReason: ErrorReason.WAKE_NOT_FOUND },
  WAKE_ID_TAKEN: { code: Code.AlreadyExists, errorReason: ErrorReason.WAKE_ID_TAKEN },
  OFFER_OUTDATED: { code: Code.Aborted, errorReason: ErrorReason.OFFER_OUTDATED },
  WAKE_ENDED: { code: Code.Aborted, errorReason: ErrorReason.WAKE_ENDED },
  WAKE_QUEUE_FULL: { code: Code.ResourceExhausted, errorReason: ErrorReason.WAKE_QUEUE_FULL },
  WAKES_LIMITED: { code: Code.ResourceExhausted, errorReason: ErrorReason.WAKES_LIMITED },
};

/**
 * The status code of a reason. Connect numbers its codes like `google.rpc.Code`, so it is also the value of
 * `AgentBeatError.code`.
 */
export function codeOf(reason: Reason): Code {
  return ROWS[reason].code;
}

/** The contract's enum value of a reason. */
export function errorReasonOf(reason: Reason): ErrorReason {
  return ROWS[reason].errorReason;
}

const REASON_PREFIX = "ERROR_REASON_";

/** The text of `ErrorInfo.reason`: the name of the enum value without its prefix. */
export function reasonText(reason: Reason): string {
  const value = ErrorReasonSchema.value[errorReasonOf(reason)];
  return value === undefined ? reason : value.name.slice(REASON_PREFIX.length);
}

/** The longest message that is sent. gRPC sends it in a header, and headers are limited. */
const MAX_MESSAGE_LENGTH = 1_000;

/**
 * Shortens a text that may quote its caller, so that it fits a header. Half of a surrogate pair, from the cut or from the
 * caller, is replaced: percent-encoding, as gRPC does with messages, throws on it.
 */
export function shorten(text: string, maxLength = MAX_MESSAGE_LENGTH): string {
  return (text.length > maxLength ? `${text.slice(0, maxLength)}…` : text).toWellFormed();
}

interface ErrorParts {
  readonly code: Code;
  readonly reason: string;
  readonly message: string;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly violations?: readonly FieldViolation[];
  readonly retryAfterMs?: number | undefined;
  readonly headers?: Headers;
  readonly cause?: unknown;
}

/**
 * Creates the error that both listeners send: with `ErrorInfo`, and with `BadRequest` and `RetryInfo` if they have
 * content.
 */
function assemble(parts: ErrorParts): ConnectError {
  const violations = parts.violations ?? [];
  const details: ConstructorParameters<typeof ConnectError>[3] = [
    {
      desc: ErrorInfoSchema,
      value: { reason: parts.reason, domain: ERROR_DOMAIN, metadata: { ...parts.metadata } },
    },
  ];
  if (violations.length > 0) {
    const fieldViolations = violations.map(({ field, description }) => ({
      field: shorten(field, 200),
      description: shorten(description),
      reason: parts.reason,
    }));
    details.push({ desc: BadRequestSchema, value: create(BadRequestSchema, { fieldViolations }) });
  }
  if (parts.retryAfterMs !== undefined) {
    details.push({
      desc: RetryInfoSchema,
      value: create(RetryInfoSchema, { retryDelay: duration(parts.retryAfterMs) }),
    });
  }
  return new ConnectError(shorten(parts.message), parts.code, parts.headers, details, parts.cause);
}

function duration(ms: number): { seconds: bigint; nanos: number } {
  const whole = Math.max(0, Math.ceil(ms));
  return { seconds: BigInt(Math.floor(whole / 1_000)), nanos: (whole % 1_000) * 1_000_000 };
}

/** Whether an error has a reason. Ours have one, those of the libraries do not. */
export function hasErrorInfo(error: ConnectError): boolean {
  return error.details.some(
    (detail) => ("desc" in detail ? detail.desc.typeName : detail.type) === ErrorInfoSchema.typeName,
  );
}

/** The `ErrorInfo.reason` of an error of ours. Undefined for other errors. */
export function errorInfoReason(error: ConnectError): string | undefined {
  return error.findDetails(ErrorInfoSchema)[0]?.reason;
}

/** The limit that an error with the reason `LIMIT_EXCEEDED` names, such as `requestsPerSecond`. Undefined for other errors. */
export function exceededLimit(error: ConnectError): string | undefined {
  const [info] = error.findDetails(ErrorInfoSchema);
  if (info?.reason !== reasonText("LIMIT_EXCEEDED")) return undefined;
  const { limit = "" } = info.metadata;
  return limit;
}

/**
 * The error for a refusal: code and reason by the table, details from the refusal. The path of an invalid field is also
 * in the metadata, as `field`, for callers that read only `ErrorInfo`.
 */
export function fromRefusal(refusal: Refusal): ConnectError {
  const [violation] = refusal.violations;
  return assemble({
    code: codeOf(refusal.reason),
    reason: reasonText(refusal.reason),
    message: refusal.message,
    metadata:
      violation === undefined ? refusal.metadata : { field: shorten(violation.field, 200), ...refusal.metadata },
    violations: refusal.violations,
    retryAfterMs: refusal.retryAfterMs,
    cause: refusal.cause,
  });
}

/**
 * The error for a call that a library rejected before its handler. Only code and text of the library's error are known.
 * The reason is that of the contract if there is one, else the code's own name (`DEADLINE_EXCEEDED`, `UNIMPLEMENTED`,
 * `CANCELLED`, `INTERNAL`). So every error has a reason. If the caller is not at fault, the message is only "internal
 * error".
 */
export function fromLibrary(code: Code, text: string, headers?: Headers): ConnectError {
  const explained = explain(code, text);
  return assemble({
    ...explained,
    reason: explained.reason === undefined ? codeName(explained.code) : reasonText(explained.reason),
    ...(headers === undefined ? {} : { headers }),
  });
}

function codeName(code: Code): string {
  return CodeSchema.value[code]?.name ?? "UNKNOWN";
}

/**
 * The caller cancelled or disconnected, or the call has ended: the reason with which the signals of ended calls are
 * aborted. All calls share it, since an error with a stack for each call would cost more than the rest of the call's end.
 */
export const CANCELLED: ConnectError = fromLibrary(Code.Canceled, "");

/** The deadline of the call has passed. */
export const DEADLINE_EXCEEDED: ConnectError = fromLibrary(Code.DeadlineExceeded, "");

/** The response to a defect of this program. The log has the cause, the caller does not get it. */
export function internalError(cause: unknown): ConnectError {
  return assemble({ code: Code.Internal, reason: codeName(Code.Internal), message: INTERNAL_ERROR, cause });
}

/** Whether an error is a defect of this program. Some errors with the code INTERNAL are the caller's fault. */
export function isDefect({ code, rawMessage }: ConnectError): boolean {
  return code === Code.Internal && rawMessage === INTERNAL_ERROR;
}

/**
 * Turns anything that was thrown into the error that is sent. Refusals are mapped by the table. Errors of the libraries
 * get details. Anything else is an internal error without further information. Never throws.
 */
export function toConnectError(thrown: unknown): ConnectError {
  if (thrown instanceof Refusal) return fromRefusal(thrown);
  if (thrown instanceof ConnectError) {
    if (hasErrorInfo(thrown)) return thrown;
    if (thrown.code === Code.Internal || thrown.code === Code.Unknown) return internalError(thrown);
    return fromLibrary(thrown.code, thrown.rawMessage, thrown.metadata);
  }
  return internalError(thrown);
}
