import {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";

/** Reads and writes messages. The default is protobuf-es. */
export interface MessageCodec {
  /** @throws any reason for bytes that it rejects; `toError` turns it into the error that is sent */
  decode<Desc extends DescMessage>(schema: Desc, bytes: Buffer): MessageShape<Desc>;
  /** `message` is what a handler returned: a message, or an object that initializes one. */
  encode<Desc extends DescMessage>(schema: Desc, message: MessageInitShape<Desc>): Uint8Array;
}

export interface BridgeOptions {
  /** Default: protobuf-es (`fromBinary`, `toBinary`). */
  readonly codec?: MessageCodec;
  /**
   * Makes the error that is sent from whatever ends a call: what a handler or the codec throws, and the bridge's own errors for
   * calls that are cancelled, late, malformed or not read. Must not throw. Default: `toConnectError`.
   */
  readonly toError?: (reason: unknown) => ConnectError;
  /**
   * How long the request of a unary or server-streaming call may take to arrive, in milliseconds, 1 to 2 147 483 647.
   * The call ends with DEADLINE_EXCEEDED then. Default 10 000.
   */
  readonly requestTimeoutMs?: number;
  /**
   * How long a stream of responses may wait for a client that does not read, in milliseconds, 1 to 2 147 483 647. The
   * call ends with RESOURCE_EXHAUSTED then. Default 60 000.
   */
  readonly writeTimeoutMs?: number;
  /**
   * Whether a stream's request headers are freed with its first response: a stream may be open for days, and HPACK turns a few
   * bytes into 16 KiB of headers. Handlers have to read headers before they respond, then. Default false.
   */
  readonly freeHeaders?: boolean;
}

/** The options with their defaults, and the errors that are the same for all calls. */
export interface BridgeSettings {
  readonly codec: MessageCodec;
  readonly toError: (reason: unknown) => ConnectError;
  readonly requestTimeoutMs: number;
  readonly writeTimeoutMs: number;
  readonly freeHeaders: boolean;
  /** Made once: an error for each call, with its stack, costs more than the rest of the call's end. */
  readonly cancelled: ConnectError;
  readonly deadlineExceeded: ConnectError;
}

const LONGEST_TIMER_MS = 2_147_483_647;

/** @throws RangeError for a timeout that a timer cannot wait */
export function settingsOf(options: BridgeOptions): BridgeSettings {
  const toError = options.toError ?? toConnectError;
  return {
    codec: options.codec ?? protobufCodec,
    toError,
    requestTimeoutMs: timeout("requestTimeoutMs", options.requestTimeoutMs ?? 10_000),
    writeTimeoutMs: timeout("writeTimeoutMs", options.writeTimeoutMs ?? 60_000),
    freeHeaders: options.freeHeaders ?? false,
    cancelled: toError(new ConnectError("the call was cancelled", Code.Canceled)),
    deadlineExceeded: toError(new ConnectError("the deadline of the call has passed", Code.DeadlineExceeded)),
  };
}

function timeout(name: string, ms: number): number {
  if (ms >= 1 && ms <= LONGEST_TIMER_MS) return ms;
  throw new RangeError(`${name} is ${ms}: use 1 to ${LONGEST_TIMER_MS} milliseconds`);
}

/** protobuf-es. A request that is not a message of its type becomes an INTERNAL error, as gRPC prescribes. */
export const protobufCodec: MessageCodec = {
  decode: (schema, bytes) => {
    try {
      return fromBinary(schema, bytes);
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new ConnectError(`cannot decode ${schema.typeName}: ${why}`, Code.Internal, undefined, undefined, cause);
    }
  },
  encode: (schema, message) => toBinary(schema, create(schema, message)),
};

/** As Connect's own servers do: a `ConnectError` is sent as it is. Any other reason stays inside: the client gets INTERNAL. */
export function toConnectError(reason: unknown): ConnectError {
  if (reason instanceof ConnectError) return reason;
  return new ConnectError("internal error", Code.Internal, undefined, undefined, reason);
}
