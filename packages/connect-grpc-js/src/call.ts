import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createHandlerContext, type MethodImplSpec } from "@connectrpc/connect";
import { Metadata, type ServerInterceptingCallInterface } from "@grpc/grpc-js";
import type { BridgeSettings, MessageCodec } from "./options.ts";
import { headersOf } from "./status.ts";
import type { CallTransport, ResponseCompression } from "./transport.ts";

// What calls of all kinds have in common.

export type CallContext = ReturnType<typeof createHandlerContext>;

/** The context of a call whose headers have arrived. */
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

/** Encodes a response. grpc-js copies it with `Buffer`'s own methods. */
export function encode<Desc extends DescMessage>(
  codec: MessageCodec,
  schema: Desc,
  message: MessageInitShape<Desc>,
): Buffer {
  const bytes = codec.encode(schema, message);
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The headers of a response, with the name of its compression. */
export function withEncoding(headers: Metadata | null, compression: ResponseCompression | undefined): Metadata | null {
  if (compression === undefined) return headers;
  const named = headers ?? new Metadata();
  named.set("grpc-encoding", compression.encoding);
  return named;
}

/** The error for a call that takes one request and got none, or more than one. */
export function notOneRequest(got: "none" | "more than one"): ConnectError {
  return new ConnectError(`this method takes exactly one request message, and got ${got}`, Code.Unimplemented);
}

/** Why a call ended before its status was sent. */
export function endReason(
  call: Pick<ServerInterceptingCallInterface, "getDeadline">,
  settings: Pick<BridgeSettings, "deadlineExceeded" | "cancelled">,
): ConnectError {
  return Number(call.getDeadline()) <= Date.now() ? settings.deadlineExceeded : settings.cancelled;
}
