import { gunzip, gunzipSync, inflateSync, inflate as inflateZlib, type ZlibOptions } from "node:zlib";
import { Code, type ConnectError } from "@connectrpc/connect";
import { MAX_MESSAGE_BYTES } from "../../../common/contract/message-limit.ts";
import { fromLibrary } from "../errors/error-table.ts";

/** Supported compressions of requests. Only gRPC has `deflate`. */
export type Encoding = "gzip" | "deflate";

/** The largest ratio of DEFLATE: bytes after decompression for each byte before. */
const MOST_RATIO = 1_032;
/** The size of an empty gzip member. Its last four bytes are the length after decompression. */
const GZIP_LEAST_BYTES = 18;
const LENGTH_BYTES = 4;

/**
 * The size after decompression, in bytes: what a gzip message declares, else an upper bound. The declaration may be wrong. A size
 * above `MAX_MESSAGE_BYTES` need not be decompressed.
 */
export function declaredBytes(bytes: Uint8Array, encoding: Encoding): number {
  const most = bytes.length * MOST_RATIO;
  if (encoding !== "gzip" || bytes.length < GZIP_LEAST_BYTES) return Math.min(most, MAX_MESSAGE_BYTES);
  const end = new DataView(bytes.buffer, bytes.byteOffset + bytes.length - LENGTH_BYTES, LENGTH_BYTES);
  return Math.min(most, end.getUint32(0, true));
}

/** The message is larger than the given limit. */
export class TooLong extends Error {}

/** Decompresses in this thread. @throws TooLong; ConnectError for damaged bytes */
export function inflateNow(bytes: Uint8Array, encoding: Encoding, most: number): Buffer {
  const inflate = encoding === "gzip" ? gunzipSync : inflateSync;
  try {
    return inflate(bytes, outputOf(most));
  } catch (thrown) {
    throw failureOf(thrown);
  }
}

/** Decompresses in another thread. Rejects with the errors of `inflateNow`. */
export function inflate(bytes: Uint8Array, encoding: Encoding, most: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const done = (error: Error | null, inflated: Buffer): void =>
      error === null ? resolve(inflated) : reject(failureOf(error));
    if (encoding === "gzip") gunzip(bytes, outputOf(most), done);
    else inflateZlib(bytes, outputOf(most), done);
  });
}

/** Output in one chunk, which needs no copy. One byte more, because zlib would else need a second chunk for the end. */
function outputOf(most: number): ZlibOptions {
  return { maxOutputLength: Math.max(1, most), chunkSize: Math.max(64, most + 1) };
}

function failureOf(thrown: unknown): Error {
  if (thrown instanceof Error && "code" in thrown && thrown.code === "ERR_BUFFER_TOO_LARGE") return new TooLong();
  return damaged();
}

/** The text of Connect's library, which `explain` knows. */
function damaged(): ConnectError {
  return fromLibrary(Code.Internal, "decompression failed");
}

/** The error for a message above the limit of all messages. */
export function tooLarge(): ConnectError {
  return fromLibrary(Code.ResourceExhausted, `a message is larger than ${MAX_MESSAGE_BYTES} after decompression`);
}
