import { EventEmitter } from "node:events";
import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import {
  type ConnectionInjector,
  logVerbosity,
  Server,
  ServerCredentials,
  type ServerOptions,
  setLogVerbosity,
} from "@grpc/grpc-js";

export interface GrpcJsServer {
  readonly server: Server;
  /** Takes connections; the server listens on no port. */
  readonly injector: ConnectionInjector;
  /** Emits `session`, `sessionError` and `stream`. */
  readonly http2Server: EventEmitter;
  /** Hands a new stream to grpc-js, which adds no listener for streams of its own. */
  readonly serveStream: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, flags: number) => void;
}

/**
 * A grpc-js server whose connections and streams the caller passes on. grpc-js has no option for three things: nghttp2's limit
 * of stream resets, `grpc-timeout` beyond a timer's range, and error details for an unknown method. The caller solves all three
 * at the HTTP/2 server, which grpc-js keeps private. Only this file reads it.
 *
 * grpc-js writes rejected headers to standard error, credentials included, so this function turns its log off for the process.
 *
 * @param http2Options options of Node's `http2.createServer`
 * @throws Error if this version of grpc-js keeps its HTTP/2 server elsewhere
 */
export function createGrpcJsServer(
  options: ServerOptions,
  http2Options: Readonly<Record<string, unknown>>,
): GrpcJsServer {
  setLogVerbosity(logVerbosity.NONE);
  const server = new Server(options);
  const commonOptions: unknown = Reflect.get(server, "commonServerOptions");
  if (typeof commonOptions !== "object" || commonOptions === null) throw unknownVersion("commonServerOptions");
  Object.assign(commonOptions, http2Options);

  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const http2Servers: unknown = Reflect.get(server, "http2Servers");
  const http2Server: unknown = http2Servers instanceof Map ? [...http2Servers.keys()][0] : undefined;
  if (!(http2Server instanceof EventEmitter)) throw unknownVersion("http2Servers");
  const [listener, ...others] = http2Server.listeners("stream");
  if (listener === undefined || others.length > 0) throw unknownVersion("the stream listener");
  http2Server.removeAllListeners("stream");
  return {
    server,
    injector,
    http2Server,
    serveStream: (stream, headers, flags) => {
      Reflect.apply(listener, http2Server, [stream, headers, flags]);
    },
  };
}

function unknownVersion(what: string): Error {
  return new Error(
    `This version of @grpc/grpc-js keeps ${what} elsewhere. Install the version that @harborforge/connect-grpc-js names.`,
  );
}
