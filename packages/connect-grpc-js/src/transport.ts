import { Stream } from "node:stream";
import { type ConnectError, type ContextValues, createContextValues } from "@connectrpc/connect";
import type { ServerInterceptingCallInterface } from "@grpc/grpc-js";

/** What one call has written and the network has not sent yet, counted against a limit. The call closes it when it ends. */
export interface Sending {
  /** Whether the call may write more now. */
  readonly hasCapacity: boolean;
  /** The call is about to write so many bytes. */
  add(bytes: number): void;
  /** The network has sent so many of them. */
  sent(bytes: number): void;
  /** Calls `resume` once, when there may be capacity again; never within this call. */
  onCapacity(resume: () => void): void;
  /** Releases what is still counted. May be repeated. */
  close(): void;
}

/** Compresses responses of clients that accept it. */
export interface ResponseCompression {
  /** The name for `grpc-encoding`, such as `gzip`. */
  readonly encoding: string;
  /** The compressed message; undefined if it is to be sent as it is. The promise must not reject. */
  compress(message: Uint8Array): Uint8Array | undefined | Promise<Uint8Array | undefined>;
}

/** What the bridge needs to know about the connection below a call. */
export interface CallTransport {
  /** Whether the client reset the stream or the connection was lost. grpc-js reports both as a half-close. */
  isReset(): boolean;
  /** The values that the handler's context starts with, such as the client's address. A new object for each call. */
  contextValues(): ContextValues;
  /** Called once for a stream of responses, and for a unary response that is larger than 4 KiB. */
  sending(): Sending;
  /** Undefined: no response is compressed, for example because the client does not accept it. */
  readonly compression?: ResponseCompression | undefined;
  /** `listener` ends the call with an error; for a request that is rejected before the bridge sees it. */
  onRejected(listener: (error: ConnectError) => void): void;
}

const UNLIMITED: Sending = {
  hasCapacity: true,
  add: () => undefined,
  sent: () => undefined,
  onCapacity: () => undefined,
  close: () => undefined,
};

/**
 * The transport of a call that grpc-js hands to its first interceptor: no values, no limit of bytes but those of one call.
 *
 * @throws Error if `call` does not come from grpc-js itself, or this version of grpc-js keeps the stream elsewhere
 */
export function transportOf(call: ServerInterceptingCallInterface): CallTransport {
  const stream: unknown = Reflect.get(call, "stream");
  if (!(stream instanceof Stream)) {
    throw new Error("The bridge found no HTTP/2 stream. Make its interceptor the first one of the grpc-js server.");
  }
  return {
    isReset: () => Reflect.get(stream, "aborted") === true || Reflect.get(stream, "destroyed") === true,
    contextValues: createContextValues,
    sending: () => UNLIMITED,
    onRejected: () => undefined,
  };
}
