import { gunzip, gunzipSync, inflateSync, inflate as inflateZlib, type ZlibOptions } from "node:zlib";
import { Code, type ConnectError } from "@connectrpc/connect";
import { MAX_MESSAGE_BYTES } from "../../contract/message-limit.ts";
import { fromLibrary } from "../errors/errors.ts";

/** Encodings of messages that are read; `deflate` by gRPC alone, whose libraries have it. */
export type Encoding = "gzip" | "deflate";

/** No byte of a compressed message can become more than so many: DEFLATE ends there. */
const MOST_RATIO = 1_032;
/** A gzip member's head and end; its last four bytes are its length when decompressed. */
const GZIP_LEAST_BYTES = 18;
const LENGTH_BYTES = 4;

/**
 * How long a message says that it is when decompressed, in bytes, as far as can be told without doing it, and no more than it
 * can be. Above `MAX_MESSAGE_BYTES` it need not be tried. What a message says may be wrong.
 */
export function declaredBytes(bytes: Uint8Array, encoding: Encoding): number {
  const most = bytes.length * MOST_RATIO;
  if (encoding !== "gzip" || bytes.length < GZIP_LEAST_BYTES) return Math.min(most, MAX_MESSAGE_BYTES);
  const end = new DataView(bytes.buffer, bytes.byteOffset + bytes.length - LENGTH_BYTES, LENGTH_BYTES);
  return Math.min(most, end.getUint32(0, true));
}

/** It does not fit into the room that it was given. */
export class TooLong extends Error {}

/** Decompresses at once. @throws TooLong; ConnectError for what is damaged */
export function inflateNow(bytes: Uint8Array, encoding: Encoding, most: number): Buffer {
  const inflate = encoding === "gzip" ? gunzipSync : inflateSync;
  try {
    return inflate(bytes, roomFor(most));
  } catch (thrown) {
    throw failureOf(thrown);
  }
}

/** Decompresses in another thread. Rejects with what `inflateNow` throws. */
export function inflate(bytes: Uint8Array, encoding: Encoding, most: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const done = (error: Error | null, inflated: Buffer): void =>
      error === null ? resolve(inflated) : reject(failureOf(error));
    if (encoding === "gzip") gunzip(bytes, roomFor(most), done);
    else inflateZlib(bytes, roomFor(most), done);
  });
}

/** One piece, so that the message need not be put together; a byte more than it takes, or the end would need another. */
function roomFor(most: number): ZlibOptions {
  return { maxOutputLength: Math.max(1, most), chunkSize: Math.max(64, most + 1) };
}

function failureOf(thrown: unknown): Error {
  if (thrown instanceof Error && "code" in thrown && thrown.code === "ERR_BUFFER_TOO_LARGE") return new TooLong();
  return damaged();
}

/** In the words of Connect's library, which have their explanation. */
function damaged(): ConnectError {
  return fromLibrary(Code.Internal, "decompression failed");
}

/** The same for what is too long for any message. */
export function tooLarge(): ConnectError {
  return fromLibrary(Code.ResourceExhausted, `a message is larger than ${MAX_MESSAGE_BYTES} after decompression`);
}
