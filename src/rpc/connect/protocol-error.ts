import { Code, ConnectError } from "@connectrpc/connect";
import { encodeEnvelope, type UniversalServerResponse } from "@connectrpc/connect/protocol";
import {
  codeToHttpStatus,
  createEndStreamSerialization,
  endStreamFlag,
  errorFromJsonBytes,
  errorToJsonBytes,
} from "@connectrpc/connect/protocol-connect";
import { findTrailerError, setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { trailerFlag, trailerParse, trailerSerialize } from "@connectrpc/connect/protocol-grpc-web";
import { fromLibrary, hasErrorInfo } from "../errors/error-table.ts";

/** How a response reports that its call failed. */
export type ErrorForm =
  /** gRPC: HTTP trailers. */
  | "trailers"
  /** gRPC-Web: a last envelope that contains trailers. */
  | "trailer-envelope"
  /** Connect, streaming: a last envelope that contains JSON. */
  | "end-of-stream"
  /** Connect, unary: an HTTP status, and JSON in the body. Clients without an RPC protocol can read it. */
  | "body";

/** The form that belongs to the content type of a request or its response. */
export function errorForm(contentType: string | null): ErrorForm {
  const type = contentType?.toLowerCase() ?? "";
  if (type.startsWith("application/grpc-web")) return "trailer-envelope";
  if (type.startsWith("application/grpc")) return "trailers";
  if (type.startsWith("application/connect+")) return "end-of-stream";
  return "body";
}

const endOfStream = createEndStreamSerialization(undefined);

/**
 * Responds to a call that reaches no handler: an unknown method, an unknown content type, a stream in both directions
 * over HTTP/1.1. The form is that of the protocol in its content type. `httpStatus` is used in the form "body".
 */
export function rejectCall(
  contentType: string | null,
  error: ConnectError,
  httpStatus?: number,
): UniversalServerResponse {
  switch (errorForm(contentType)) {
    case "trailers":
      return {
        status: 200,
        header: new Headers({ "content-type": "application/grpc+proto" }),
        trailer: setTrailerStatus(new Headers(), error),
      };
    case "trailer-envelope":
      return {
        status: 200,
        header: new Headers({ "content-type": "application/grpc-web+proto" }),
        body: one(encodeEnvelope(trailerFlag, trailerSerialize(setTrailerStatus(new Headers(), error)))),
      };
    case "end-of-stream":
      return {
        status: 200,
        header: new Headers({ "content-type": contentType ?? "" }),
        body: one(encodeEnvelope(endStreamFlag, endOfStream.serialize({ metadata: new Headers(), error }))),
      };
    case "body":
      return {
        status: httpStatus ?? codeToHttpStatus(error.code),
        header: new Headers({ "content-type": "application/json" }),
        body: one(errorToJsonBytes(error, undefined)),
      };
  }
}

async function* one(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

/** Adds details to the error of a finished gRPC call, if it has none. Changes the given trailers. */
export function explainTrailers(trailer: Headers): ConnectError | undefined {
  const error = findTrailerError(trailer);
  if (error === undefined || hasErrorInfo(error)) return undefined;
  setTrailerStatus(trailer, fromLibrary(error.code, error.rawMessage));
  return error;
}

/** A chunk of a response as it should be sent, and the library's error if it had no details. */
export interface Explained {
  readonly chunk: Uint8Array;
  readonly error?: ConnectError;
  /** Form "body": the HTTP status of the explained error. */
  readonly httpStatus?: number;
}

const ENVELOPE_HEADER_BYTES = 5;

/** Like `explainTrailers`, for the chunk that ends a stream. Other chunks are returned unchanged. */
export function explainEnvelope(form: "trailer-envelope" | "end-of-stream", chunk: Uint8Array): Explained {
  const flag = form === "end-of-stream" ? endStreamFlag : trailerFlag;
  // A compressed last envelope is a long one. The libraries' errors are short, so this one has details.
  if (chunk[0] !== flag) return { chunk };
  const data = chunk.subarray(ENVELOPE_HEADER_BYTES);
  if (form === "trailer-envelope") {
    const trailer = trailerParse(data);
    const error = explainTrailers(trailer);
    return error === undefined ? { chunk } : { chunk: encodeEnvelope(flag, trailerSerialize(trailer)), error };
  }
  const { metadata, error } = endOfStream.parse(data);
  if (error === undefined || hasErrorInfo(error)) return { chunk };
  const explained = { metadata, error: fromLibrary(error.code, error.rawMessage) };
  return { chunk: encodeEnvelope(flag, endOfStream.serialize(explained)), error };
}

/** Like `explainTrailers`, for the body of a unary Connect call that failed. */
export function explainBody(chunk: Uint8Array): Explained {
  const unreadable = new ConnectError("", Code.Unknown);
  let error: ConnectError;
  try {
    error = errorFromJsonBytes(chunk, undefined, unreadable);
  } catch {
    error = unreadable;
  }
  if (hasErrorInfo(error)) return { chunk };
  const explained = fromLibrary(error.code, error.rawMessage);
  return { chunk: errorToJsonBytes(explained, undefined), error, httpStatus: codeToHttpStatus(explained.code) };
}
