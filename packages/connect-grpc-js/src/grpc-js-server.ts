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
  readonly injector: ConnectionInjector;
  readonly http2Server: EventEmitter;
  /** What grpc-js does with a new stream. */
  readonly serveStream: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, flags: number) => void;
}

/**
 * A grpc-js server whose connections and streams pass through our hands. grpc-js has no option for three things that
 * are needed: nghttp2's budget of stream resets, `grpc-timeout` beyond a timer's range, and details when a method is
 * unknown. All three are solved at its HTTP/2 server, which it keeps private; this file is the only one to reach for it,
 * and it refuses to start with a version of grpc-js that keeps it elsewhere.
 *
 * Connections are handed over by its connection injector, so nothing is accepted before the listeners are in place.
 */
export function createGrpcJsServer(
  options: ServerOptions,
  http2Options: Readonly<Record<string, unknown>>,
): GrpcJsServer {
  // It writes to standard error what callers sent, credentials among it, where a header has a character that it should not.
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
  return new Error(`this version of @grpc/grpc-js keeps ${what} elsewhere: see src/rpc/grpc-js-server.ts`);
}
