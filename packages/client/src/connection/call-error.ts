import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, RetryInfoSchema } from "../../../../gen/google/rpc/error_details_pb.ts";
import { durationOf, millisOf } from "../../../../src/contract/timestamps.ts";

/** The names that google.rpc.Code has for Connect's codes. Where one is missing, the compiler says so. */
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

/** How a call failed, as google.rpc.Code names it. */
export type CallCode = (typeof CODE_NAMES)[Code];

/** Saying the same again, however late, will be refused again. */
const HOPELESS: ReadonlySet<CallCode> = new Set([
  "INVALID_ARGUMENT",
  "PERMISSION_DENIED",
  "UNIMPLEMENTED",
  "UNAUTHENTICATED",
]);

/** A call that failed, in the words of the contract. */
export class CallError extends Error {
  override readonly name = "CallError";
  readonly code: CallCode;
  /** A value of ErrorReason without its prefix, such as `AGENT_EXHAUSTED`. Undefined where the server gave none. */
  readonly reason: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  /** When the server asks to be called again. */
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

  /** Whether calling again in the same way is of no use. */
  get hopeless(): boolean {
    return HOPELESS.has(this.code);
  }
}

/** A CallError as a message between threads carries it. */
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

/** What was thrown by a call. Faults of the network come as `UNAVAILABLE`. Never throws. */
export function callErrorOf(thrown: unknown): CallError {
  try {
    return thrown instanceof CallError ? thrown : new CallError(ConnectError.from(thrown, Code.Unavailable));
  } catch {
    // A program's token function may throw anything.
    return new CallError(new ConnectError("something was thrown that has no text", Code.Unavailable));
  }
}

/** Awaits a call. @throws CallError */
export async function answered<Answer>(call: Promise<Answer>): Promise<Answer> {
  try {
    return await call;
  } catch (thrown) {
    throw callErrorOf(thrown);
  }
}
