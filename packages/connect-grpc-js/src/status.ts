import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectError } from "@connectrpc/connect";
import { Metadata, type ServerInterceptingCallInterface } from "@grpc/grpc-js";
import { StatusSchema } from "../../../gen/google/rpc/status_pb.ts";
import { fromLibrary } from "../../../src/rpc/errors/errors.ts";

/** A status as grpc-js takes it. */
export type GrpcStatus = Parameters<ServerInterceptingCallInterface["sendStatus"]>[0];

const DETAILS_KEY = "grpc-status-details-bin";

/** The end of a call that went well. */
export function okStatus(trailer: Metadata | null): GrpcStatus {
  return { code: 0, details: "", metadata: trailer };
}

/** An error as grpc-js sends it, with its details as `google.rpc.Status`. `trailer` is what the handler set. */
export function errorStatus(error: ConnectError, trailer?: Metadata | null): GrpcStatus {
  const metadata = trailer ?? new Metadata();
  const code: number = error.code;
  copyHeaders(error.metadata, metadata);
  const status = create(StatusSchema, {
    code,
    message: error.rawMessage,
    details: error.details.map((detail) =>
      "desc" in detail
        ? anyPack(detail.desc, create(detail.desc, detail.value))
        : { typeUrl: `type.googleapis.com/${detail.type}`, value: detail.value },
    ),
  });
  metadata.set(DETAILS_KEY, Buffer.from(toBinary(StatusSchema, status)));
  return { code, details: error.rawMessage, metadata };
}

/**
 * A status as it leaves, with details if it has none: grpc-js itself refuses what is too large, late, wrongly compressed
 * or not implemented, in a code and a sentence.
 */
export function explainedStatus(status: GrpcStatus): GrpcStatus {
  const code: number = status.code ?? Code.Unknown;
  if (code === 0 || (status.metadata != null && status.metadata.get(DETAILS_KEY).length > 0)) return status;
  return errorStatus(fromLibrary(code, status.details ?? ""), status.metadata ?? null);
}

/** Copies web headers into gRPC metadata; binary ones, named `…-bin`, are base64 there and bytes here. */
export function copyHeaders(from: Headers, to: Metadata): void {
  for (const [key, value] of from) {
    if (key.startsWith("grpc-") || key.startsWith(":")) continue;
    if (!key.endsWith("-bin")) {
      to.add(key, value);
      continue;
    }
    for (const part of value.split(",")) to.add(key, Buffer.from(part.trim(), "base64"));
  }
}

/** The metadata for headers; null for none, which most calls have. */
export function metadataOf(headers: Headers): Metadata | null {
  const metadata = new Metadata();
  copyHeaders(headers, metadata);
  return Object.keys(metadata.getMap()).length === 0 ? null : metadata;
}

/** The headers of a call in the web's form. Binary ones stay base64, as Connect hands them to handlers. */
export function headersOf(metadata: Metadata): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [key, value] of Object.entries(metadata.toHttp2Headers())) {
    if (value !== undefined && !key.startsWith(":"))
      headers[key] = Array.isArray(value) ? value.join(", ") : String(value);
  }
  return headers;
}
