import { Code, ConnectError } from "@connectrpc/connect";
import { durationOf, millisOf } from "../../../../common/contract/timestamps.ts";
import { ErrorInfoSchema, RetryInfoSchema } from "../../../../gen/google/rpc/error_details_pb.ts";

/** The names of Connect's codes in google.rpc.Code. The compiler reports a missing one. */
const CODE_NAMES = {
  [Code.Canceled]: "CANCELLED",
  [Code.Unknown]: "UNKNOWN",
  [Code.InvalidArgument]: "INVALID_ARGUMENT",
  [Code.DeadlineExceeded]: "DEADLINE_EXCEEDED",
  [Code.NotFound]: "NOT_FOUND",
  [Code.AlreadyExists]: "ALREADY_EXISTS",
  [Code.PermissionDenied]: "PERMISSION_DENIED",
  [Code.ResourceExhausted]: "RESOURCE_EXHAUSTED",
  [Code.FailedPrecondition]: "FAILED_PRECONDITION",
  [Code.Aborted]: "ABORTED",
  [Code.OutOfRange]: "OUT_OF_RANGE",
  [Code.Unimplemented]: "UNIMPLEMENTED",
  [Code.Internal]: "INTERNAL",
  [Code.Unavailable]: "UNAVAILABLE",
  [Code.DataLoss]: "DATA_LOSS",
  [Code.Unauthenticated]: "UNAUTHENTICATED",
} as const satisfies Readonly<Record<Code, string>>;

const CODES = Object.values(Code).filter((code) => typeof code === "number");

/** The code of a failed call, by its name in google.rpc.Code. */
export type CallCode = (typeof CODE_NAMES)[Code];

/** The same call will fail again, however late. */
const PERMANENT: ReadonlySet<CallCode> = new Set([
  "INVALID_ARGUMENT",
  "PERMISSION_DENIED",
  "UNIMPLEMENTED",
  "UNAUTHENTICATED",
]);

/** A failed call, with the reason of the contract. */
export class CallError extends Error {
  override readonly name = "CallError";
  readonly code: CallCode;
  /** A value of ErrorReason without its prefix, such as `AGENT_EXHAUSTED`. Undefined if the server sent none. */
  readonly reason: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  /** The time in milliseconds after which the server asks the client to retry. */
  readonly retryAfterMs: number | undefined;

  constructor(error: ConnectError) {
    super(error.rawMessage, { cause: error });
    const [info] = error.findDetails(ErrorInfoSchema);
    const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
    this.code = CODE_NAMES[error.code];
    this.reason = info?.reason;
    this.metadata = info?.metadata ?? {};
    this.retryAfterMs = delay === undefined ? undefined : millisOf(delay);
  }

  /** Whether the same call will fail again, so that a retry does not help. */
  get permanent(): boolean {
    return PERMANENT.has(this.code);
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

export function callErrorFrom({ message, code, reason, metadata, retryAfterMs }: CallErrorData): CallError {
  const [number = Code.Unknown] = CODES.filter((one) => CODE_NAMES[one] === code);
  const error = new ConnectError(message, number);
  if (reason !== undefined) error.details.push({ desc: ErrorInfoSchema, value: { reason, metadata } });
  if (retryAfterMs !== undefined) {
    error.details.push({ desc: RetryInfoSchema, value: { retryDelay: durationOf(retryAfterMs) } });
  }
  return new CallError(error);
}

/** Converts the error of a call. Network errors become `UNAVAILABLE`. Never throws. */
export function callErrorOf(thrown: unknown): CallError {
  try {
    return thrown instanceof CallError ? thrown : new CallError(ConnectError.from(thrown, Code.Unavailable));
  } catch {
    // A program's token function may throw anything.
    return new CallError(new ConnectError("a value was thrown that cannot be converted to a string", Code.Unavailable));
  }
}

/** Waits for a call. @throws CallError */
export async function answered<Answer>(call: Promise<Answer>): Promise<Answer> {
  try {
    return await call;
  } catch (thrown) {
    throw callErrorOf(thrown);
  }
}
