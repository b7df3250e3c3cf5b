import { type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import {
  Code,
  type ConnectError,
  type ContextValues,
  createHandlerContext,
  type MethodImplSpec,
} from "@connectrpc/connect";
import type { Metadata, ServerInterceptingCallInterface } from "@grpc/grpc-js";
import { readFast } from "../../../src/rpc/codec/fast-path.ts";
import { CANCELLED, DEADLINE_EXCEEDED, fromLibrary } from "../../../src/rpc/errors/errors.ts";
import type { Sending } from "../../../src/rpc/sockets/send-budget.ts";
import { hasTooManyValues, tooManyValues } from "../../../src/rpc/validation/value-limit.ts";
import { headersOf } from "./status.ts";

// What calls of every kind have in common on the gRPC listener.

/** What the bridge has to know of the network below a call. */
export interface CallTransport {
  /** Whether the caller reset the call's stream, or its connection is lost. grpc-js takes that for a half-close. */
  isReset(): boolean;
  /** What is known of the caller before it says anything: where it calls from. */
  contextValues(): ContextValues;
  /** What the call has written and not sent; to be closed when it is over. */
  sending(): Sending;
  /** Hears of a message that is too much, or too slow, to be waited for. */
  onRefused(listener: (error: ConnectError) => void): void;
}

export type CallContext = ReturnType<typeof createHandlerContext>;

/** The context of a call whose headers are there. */
export function callContext(
  { method }: MethodImplSpec,
  path: string,
  call: ServerInterceptingCallInterface,
  metadata: Metadata,
  transport: CallTransport,
): CallContext {
  const deadline = call.getDeadline();
  return createHandlerContext({
    service: method.parent,
    method,
    protocolName: "grpc",
    requestMethod: "POST",
    url: `http://${call.getHost()}${path}`,
    requestHeader: headersOf(metadata),
    contextValues: transport.contextValues(),
    ...(deadline === Number.POSITIVE_INFINITY ? {} : { timeoutMs: Number(deadline) - Date.now() }),
  });
}

/** Reads a message. @throws ConnectError for too many values in it, and for what is no message */
export function readMessage<Desc extends DescMessage>(desc: Desc, bytes: Buffer): MessageShape<Desc> {
  if (hasTooManyValues(desc, bytes)) throw tooManyValues();
  const fast = readFast(desc, bytes);
  if (fast !== undefined) return fast;
  try {
    return fromBinary(desc, bytes);
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    throw fromLibrary(Code.Internal, `parse binary: ${why}`);
  }
}

/** The answer to no request, or a second one, where there has to be one. */
export function oneRequest(fault: "missing" | "extra"): ConnectError {
  return fromLibrary(
    Code.Unimplemented,
    `this method takes exactly one request message, and ${fault === "missing" ? "none" : "more than one"} came`,
  );
}

/** Why a call is over whose status did not leave. */
export function lateOrCancelled(call: ServerInterceptingCallInterface): ConnectError {
  return Number(call.getDeadline()) <= Date.now() ? DEADLINE_EXCEEDED : CANCELLED;
}
