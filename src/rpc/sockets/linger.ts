import { constants, type ServerHttp2Stream } from "node:http2";

/**
 * Resets the stream of a call that has ended, if its client has neither read the rest nor closed its side after `ms`
 * milliseconds: such a stream would stay, with what waits in it, as long as the connection. To be called at the call's
 * end. Does nothing, and costs nothing, for the usual stream, which is over by then.
 */
export function lingerThenReset(stream: ServerHttp2Stream, ms: number): void {
  if (stream.closed || (stream.readableEnded && stream.writableLength === 0)) return;
  const timer = setTimeout(() => {
    // Without an error Node would first wait until all is written, which is what never happens here.
    stream.close(stream.writableLength > 0 ? constants.NGHTTP2_CANCEL : constants.NGHTTP2_NO_ERROR);
  }, ms);
  stream.once("close", () => clearTimeout(timer));
}
