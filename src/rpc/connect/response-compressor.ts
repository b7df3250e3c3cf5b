import { compressedFlag, encodeEnvelope, type UniversalServerResponse } from "@connectrpc/connect/protocol";
import type { ResponseCompression } from "@harborforge/connect-grpc-js";
import { acceptsGzip } from "../sockets/response-compression.ts";
import { errorForm } from "./protocol-error.ts";

const ENVELOPE_HEAD_BYTES = 5;

/** Compresses one chunk of a response: an envelope, or the whole body of a unary Connect call. */
export interface ResponseCompressor {
  /** The chunk to send. It may change the headers of the response, which must not be sent yet. */
  chunk(chunk: Uint8Array): Uint8Array | Promise<Uint8Array>;
}

/**
 * The compressor of a response. Undefined if the caller does not accept compression.
 *
 * @param accepted the header `accept-encoding` of a unary Connect call. For envelopes the library has negotiated already, and the
 * response names the compression
 */
export function responseCompressor(
  response: UniversalServerResponse,
  accepted: string | null,
  compression: ResponseCompression | undefined,
): ResponseCompressor | undefined {
  const { header } = response;
  if (compression === undefined || header === undefined) return undefined;
  const form = errorForm(header.get("content-type"));
  if (form !== "body") {
    const name = form === "end-of-stream" ? "connect-content-encoding" : "grpc-encoding";
    return header.get(name) === compression.encoding ? envelopeCompressor(compression) : undefined;
  }
  // Caches must not send a compressed response to a caller that does not accept it.
  header.append("vary", "accept-encoding");
  return response.status === 200 && acceptsGzip(accepted) ? bodyCompressor(header, compression) : undefined;
}

function envelopeCompressor(compression: ResponseCompression): ResponseCompressor {
  return {
    chunk: (chunk) => {
      // Only messages: other flags mark the end of the stream.
      if (chunk[0] !== 0 || chunk.length <= ENVELOPE_HEAD_BYTES) return chunk;
      const finish = (compressed: Uint8Array | undefined): Uint8Array =>
        compressed === undefined ? chunk : encodeEnvelope(compressedFlag, compressed);
      const compressed = compression.compress(chunk.subarray(ENVELOPE_HEAD_BYTES));
      return compressed instanceof Promise ? compressed.then(finish) : finish(compressed);
    },
  };
}

function bodyCompressor(header: Headers, compression: ResponseCompression): ResponseCompressor {
  return {
    chunk: (chunk) => {
      const finish = (compressed: Uint8Array | undefined): Uint8Array => {
        if (compressed === undefined) return chunk;
        header.set("content-encoding", compression.encoding);
        header.set("content-length", String(compressed.length));
        return compressed;
      };
      const compressed = compression.compress(chunk);
      return compressed instanceof Promise ? compressed.then(finish) : finish(compressed);
    },
  };
}
