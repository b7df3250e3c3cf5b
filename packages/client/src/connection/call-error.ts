import { Code, ConnectError } from "@connectrpc/connect";
import type { ErrorReason } from "../../../../common/contract/enum-names.ts";
import { millisOf } from "../../../../common/contract/timestamps.ts";
import { ErrorInfoSchema, RetryInfoSchema } from "../../../../gen/watch/google/rpc/error_details_pb.ts";

/** The codes of google.rpc.Code, and of Connect, in the order of their numbers from 1. */
const CALL_CODES = [
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
] as const;

/** The code of a failed call, by its name in google.rpc.Code. */
export type CallCode = (typeof CALL_CODES)[number];

/** The name of a number of google.rpc.Code. */
export function codeName(code: number): CallCode {
  return CALL_CODES[code - 1] ?? "UNKNOWN";
}

/** A reason that this version does not know. The type keeps the names that it knows visible to editors. */
export type UnknownReason = string & Record<never, never>;

/** The same call will fail again, however late. */
const PERMANENT: readonly CallCode[] = ["INVALID_ARGUMENT", "PERMISSION_DENIED", "UNIMPLEMENTED", "UNAUTHENTICATED"];

/** What an error of a call states beyond its message. */
export interface CallErrorDetails {
  readonly code: CallCode;
  readonly reason?: string | undefined;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly retryAfterMs?: number | undefined;
  readonly cause?: unknown;
}

/**
 * A failed call: each call, watch and report of this library rejects with this error. The message says what is wrong, and what to
 * do. `cause` is the error of Connect, if there was one.
 */
export class CallError extends Error {
  override readonly name: string = "CallError";
  /** The code by its name in `google.rpc.Code`, such as `NOT_FOUND`. */
  readonly code: CallCode;
  /**
   * A value of the contract's ErrorReason without its prefix, such as `AGENT_EXHAUSTED` (`ERROR_REASONS` lists them), or one of a
   * newer service. Undefined if the service was not reached, or sent none.
   */
  readonly reason: ErrorReason | UnknownReason | undefined;
  /** Facts of the reason, by names in lowerCamelCase, such as `recoveryAt` (RFC 3339). Empty if there are none. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The time in milliseconds after which the same call may succeed. Undefined if the service names none. */
  readonly retryAfterMs: number | undefined;

  constructor(message: string, { code, reason, metadata = {}, retryAfterMs, cause }: CallErrorDetails) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.reason = reason;
    this.metadata = metadata;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether the same call will fail again, so that a retry does not help. */
  get permanent(): boolean {
    return PERMANENT.includes(this.code);
  }

  /** @deprecated Use `permanent`. */
  get hopeless(): boolean {
    return this.permanent;
  }
}

/** A CallError in a message between threads. */
export type CallErrorData = Pick<CallError, "message" | "code" | "reason" | "metadata" | "retryAfterMs">;

export function callErrorData({ message, code, reason, metadata, retryAfterMs }: CallError): CallErrorData {
  return { message, code, reason, metadata, retryAfterMs };
}

export function callErrorFrom({ message, ...details }: CallErrorData): CallError {
  return new CallError(message, details);
}

/** Converts the error of a call. Network errors become `UNAVAILABLE`. Never throws. */
export function callErrorOf(thrown: unknown): CallError {
  try {
    return thrown instanceof CallError ? thrown : fromConnect(ConnectError.from(thrown, Code.Unavailable));
  } catch {
    // A program's token function may throw anything.
    return new CallError("a value was thrown that cannot be converted to a string", { code: "UNAVAILABLE" });
  }
}

function fromConnect(error: ConnectError): CallError {
  const [info] = error.findDetails(ErrorInfoSchema);
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return new CallError(error.rawMessage, {
    // fetch rejects with a TypeError if it cannot connect, or the page may not read the response.
    code: error.code === Code.Unknown && error.cause instanceof TypeError ? "UNAVAILABLE" : codeName(error.code),
    reason: info?.reason,
    metadata: info?.metadata ?? {},
    retryAfterMs: delay === undefined ? undefined : millisOf(delay),
    cause: error,
  });
}
