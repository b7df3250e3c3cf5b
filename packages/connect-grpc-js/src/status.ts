import { create, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { AnySchema, anyPack } from "@bufbuild/protobuf/wkt";
import type { Code, ConnectError } from "@connectrpc/connect";
import { Metadata, type ServerInterceptingCallInterface } from "@grpc/grpc-js";

/** A status as grpc-js takes it. */
export type GrpcStatus = Parameters<ServerInterceptingCallInterface["sendStatus"]>[0];

const DETAILS_KEY = "grpc-status-details-bin";

/** The status of a call that succeeded. */
export function okStatus(trailer: Metadata | null): GrpcStatus {
  return { code: 0, details: "", metadata: trailer };
}

/**
 * The status for an error, with its metadata and details (`google.rpc.Status`). `trailer` holds the handler's own trailers
 * and gets those of the error.
 */
export function errorStatus(error: ConnectError, trailer?: Metadata | null): GrpcStatus {
  const metadata = trailer ?? new Metadata();
  const code: number = error.code;
  // grpc-js encodes the text with encodeURI, which throws on half a surrogate pair.
  const message = error.rawMessage.toWellFormed();
  copyHeaders(error.metadata, metadata);
  if (error.details.length > 0) metadata.set(DETAILS_KEY, statusMessage(code, message, error));
  return { code, details: message, metadata };
}

/** A message `google.rpc.Status`: code (1), message (2), details (3). protobuf-es does not come with its schema. */
function statusMessage(code: number, message: string, { details }: ConnectError): Buffer {
  const writer = new BinaryWriter();
  writer.tag(1, WireType.Varint).int32(code);
  if (message !== "") writer.tag(2, WireType.LengthDelimited).string(message);
  for (const detail of details) {
    const any =
      "desc" in detail
        ? anyPack(detail.desc, create(detail.desc, detail.value))
        : create(AnySchema, { typeUrl: `type.googleapis.com/${detail.type}`, value: detail.value });
    writer.tag(3, WireType.LengthDelimited).bytes(toBinary(AnySchema, any));
  }
  return Buffer.from(writer.finish());
}

/**
 * Replaces a status of grpc-js itself, which has a code and a text only, by that of a Connect error. grpc-js rejects by itself
 * what is too large, late, wrongly compressed or not implemented. A status with details is returned as it is.
 */
export function explainedStatus(status: GrpcStatus, explain: (code: Code, text: string) => ConnectError): GrpcStatus {
  const code: number = status.code ?? UNKNOWN;
  if (code === 0 || (status.metadata != null && status.metadata.get(DETAILS_KEY).length > 0)) return status;
  return errorStatus(explain(code, status.details ?? ""), status.metadata ?? null);
}

const UNKNOWN: number = 2;

/** Copies web headers to gRPC metadata. The values of binary headers (`…-bin`) are base64 in the former, bytes in the latter. */
export function copyHeaders(from: Headers, to: Metadata): void {
  for (const [key, value] of from) {
    // The status itself is sent otherwise. What the server accepts belongs to an error about compression.
    if ((key.startsWith("grpc-") && key !== "grpc-accept-encoding") || key.startsWith(":")) continue;
    if (!key.endsWith("-bin")) {
      to.add(key, value);
      continue;
    }
    for (const part of value.split(",")) to.add(key, Buffer.from(part.trim(), "base64"));
  }
}

/** The metadata for headers; null for none, which is the usual case. */
export function metadataOf(headers: Headers): Metadata | null {
  const metadata = new Metadata();
  copyHeaders(headers, metadata);
  return Object.keys(metadata.getMap()).length === 0 ? null : metadata;
}

/** The headers of a call as web headers. Binary ones stay base64, as Connect hands them to handlers. */
export function headersOf(metadata: Metadata): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [key, value] of Object.entries(metadata.toHttp2Headers())) {
    if (value !== undefined && !key.startsWith(":"))
      headers[key] = Array.isArray(value) ? value.join(", ") : String(value);
  }
  return headers;
}
