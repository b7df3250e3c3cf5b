import { constants, type ServerHttp2Stream } from "node:http2";

/**
 * Resets the stream of an ended call after `ms` milliseconds, unless the client has read the response and closed its side. Such a
 * stream would hold its unread bytes as long as the connection. To be called when the call ends. Sets no timer for a stream that
 * has ended by then, which is the usual case.
 */
export function lingerThenReset(stream: ServerHttp2Stream, ms: number): void {
  if (stream.closed || (stream.readableEnded && stream.writableLength === 0)) return;
  const timer = setTimeout(() => {
    // Without an error code Node would first wait until all is written, which never happens here.
    stream.close(stream.writableLength > 0 ? constants.NGHTTP2_CANCEL : constants.NGHTTP2_NO_ERROR);
  }, ms);
  stream.once("close", () => clearTimeout(timer));
}
