import { type ClientHttp2Stream, constants, type IncomingHttpHeaders, type OutgoingHttpHeaders } from "node:http2";
import { promisify } from "node:util";
import { gunzip, gzip } from "node:zlib";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import type {
  Compression,
  UniversalClientFn,
  UniversalClientRequest,
  UniversalClientResponse,
} from "@connectrpc/connect/protocol";
import { createTransport } from "@connectrpc/connect/protocol-grpc";
import type { ServiceConnection } from "./service-connection.ts";
import { traceContext } from "./trace-context.ts";

type GrpcConnection = Pick<ServiceConnection, "authority" | "request" | "noteRead">;

/** The largest message that a frame of gRPC can announce, in bytes. */
const LARGEST_MESSAGE = 0xffff_ffff;

/**
 * gRPC over a connection of this library.
 *
 * It takes the place of connect-node, which requires one exact version of `@connectrpc/connect`: a host with another version would
 * get a second copy of it.
 */
export function createGrpcTransport(connection: GrpcConnection): Transport {
  return createTransport({
    baseUrl: connection.authority,
    httpClient: sendOver(connection),
    useBinaryFormat: true,
    interceptors: [traceContext],
    sendCompression: null,
    acceptCompression: [GZIP],
    compressMinBytes: 1_024,
    readMaxBytes: LARGEST_MESSAGE,
    writeMaxBytes: LARGEST_MESSAGE,
  });
}

const GZIP: Compression = {
  name: "gzip",
  compress: async (bytes) => new Uint8Array(await promisify(gzip)(bytes)),
  decompress: async (bytes, maxOutputLength) => {
    if (bytes.length === 0) return new Uint8Array(0);
    try {
      return new Uint8Array(await promisify(gunzip)(bytes, { maxOutputLength }));
    } catch (error) {
      throw new ConnectError(
        "a message of the server cannot be decompressed",
        Code.Internal,
        undefined,
        undefined,
        error,
      );
    }
  },
};

function sendOver(connection: GrpcConnection): UniversalClientFn {
  return async (request) => {
    const { method, url, header, signal } = request;
    const { pathname, search } = new URL(url);
    const headers = { ...outgoing(header), ":method": method, ":path": pathname + search };
    const stream = await unlessAborted(connection.request(headers, signal), signal);
    // Node reports an aborted signal of a stream with another reset code.
    const abort = (): void => end(stream, signal?.reason, Code.Canceled);
    signal?.addEventListener("abort", abort, { once: true });
    stream.once("close", () => signal?.removeEventListener("abort", abort));
    if (signal?.aborted === true) abort();
    void sendBody(stream, request);
    return await responseOf(stream, connection);
  };
}

/**
 * Ends a stream early: tells the server, and fails the reads of the stream with this error.
 *
 * @param code the code of an error that has none
 */
function end(stream: ClientHttp2Stream, error: unknown, code: Code): void {
  if (!stream.closed) stream.close(constants.NGHTTP2_CANCEL);
  stream.destroy(ConnectError.from(error, code));
}

/** Sends the body as the stream takes it. Never rejects: the reader of the response gets the failure. */
async function sendBody(stream: ClientHttp2Stream, { body }: UniversalClientRequest): Promise<void> {
  let settle: (isWritten: boolean) => void = () => undefined;
  stream.once("close", () => settle(false));
  const write = (chunk: Uint8Array): Promise<boolean> =>
    new Promise((resolve) => {
      settle = resolve;
      stream.write(chunk, (error) => resolve(error === null || error === undefined));
    });
  try {
    for await (const chunk of body ?? []) {
      // The server has ended the stream. It may have responded before, which the reader finds.
      if (stream.closed || stream.destroyed || !(await write(chunk))) return;
    }
    stream.end();
  } catch (error) {
    end(stream, error, Code.Internal);
  }
}

/** @throws ConnectError if the stream ends before the headers of the response */
function responseOf(stream: ClientHttp2Stream, connection: GrpcConnection): Promise<UniversalClientResponse> {
  const { promise, resolve, reject } = Promise.withResolvers<UniversalClientResponse>();
  const trailer = new Headers();
  stream.on("trailers", (headers) => addTo(trailer, headers));
  stream.once("response", (headers) => {
    const status = headers[":status"] ?? 0;
    resolve({ status, header: addTo(new Headers(), headers), body: bodyOf(stream, connection), trailer });
  });
  stream.once("error", (error) => reject(failureOf(stream, error)));
  stream.once("close", () => reject(failureOf(stream)));
  return promise;
}

async function* bodyOf(stream: ClientHttp2Stream, connection: GrpcConnection): AsyncGenerator<Uint8Array> {
  let isRead = false;
  try {
    for await (const chunk of stream) {
      connection.noteRead(stream);
      yield chunk;
    }
    isRead = true;
    connection.noteRead(stream);
  } catch (error) {
    isRead = true;
    throw failureOf(stream, error);
  } finally {
    if (!isRead) end(stream, "the response is not read any more", Code.Canceled);
  }
  // Without trailers: the server, or a proxy, broke the response off.
  const failure = ofReset(stream.rstCode ?? constants.NGHTTP2_NO_ERROR);
  if (failure !== undefined) throw failure;
}

/** The codes of gRPC for those of HTTP/2 (doc/PROTOCOL-HTTP2.md of gRPC). */
const RESETS: ReadonlyMap<number, Code> = new Map([
  [constants.NGHTTP2_REFUSED_STREAM, Code.Unavailable],
  [constants.NGHTTP2_CANCEL, Code.Canceled],
  [constants.NGHTTP2_ENHANCE_YOUR_CALM, Code.ResourceExhausted],
  [constants.NGHTTP2_INADEQUATE_SECURITY, Code.PermissionDenied],
  [constants.NGHTTP2_HTTP_1_1_REQUIRED, Code.Unavailable],
  // The stream had ended already.
  [constants.NGHTTP2_STREAM_CLOSED, Code.Unavailable],
]);

/** Undefined if the stream was not reset. */
function ofReset(code: number): ConnectError | undefined {
  if (code === constants.NGHTTP2_NO_ERROR) return undefined;
  return new ConnectError(
    `the server reset the stream with the HTTP/2 error code ${code}`,
    RESETS.get(code) ?? Code.Internal,
  );
}

/** Node's codes for a stream that the server has reset. Other errors are those of the connection. */
const OF_RESETS: readonly unknown[] = ["ERR_HTTP2_STREAM_ERROR", "ERR_STREAM_PREMATURE_CLOSE"];

/** The error of a stream, as an error of the call. What is not an error of the call itself is one of the network. */
function failureOf(stream: ClientHttp2Stream, error?: unknown): ConnectError {
  if (error instanceof ConnectError) return error;
  const isReset = !(error instanceof Error) || ("code" in error && OF_RESETS.includes(error.code));
  const reset = isReset ? ofReset(stream.rstCode ?? constants.NGHTTP2_NO_ERROR) : undefined;
  if (reset !== undefined) {
    reset.cause = error;
    return reset;
  }
  const message = error instanceof Error ? error.message : "the connection closed before the response";
  return new ConnectError(message, Code.Unavailable, undefined, undefined, error);
}

/** The signal ends the wait for a connection. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return await promise;
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  promise.catch(() => undefined);
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

function outgoing(headers: Headers): OutgoingHttpHeaders {
  const all: OutgoingHttpHeaders = {};
  for (const [name, value] of headers) all[name] = value;
  return all;
}

/** Adds what is no pseudo-header. */
function addTo(target: Headers, headers: IncomingHttpHeaders): Headers {
  for (const [name, values] of Object.entries(headers)) {
    if (name.startsWith(":") || values === undefined) continue;
    for (const value of [values].flat()) target.append(name, value);
  }
  return target;
}
