import type { MethodImplSpec, ServiceImplSpec } from "@connectrpc/connect";
import {
  type Server,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
} from "@grpc/grpc-js";
import { type BridgeOptions, settingsOf } from "./options.ts";
import { StreamedCall } from "./streamed-call.ts";
import { type CallTransport, transportOf } from "./transport.ts";
import { UnaryCall } from "./unary-call.ts";

/**
 * Serves implementations of Connect services through grpc-js.
 *
 * It works on grpc-js's server calls, as interceptors see them, instead of the Node streams that grpc-js makes for handlers.
 * Those streams cost two thirds of an idle call's memory, end without an error when the client cancels, and hold back the
 * status of a call whose client does not read.
 */
export interface GrpcBridge {
  /** Registers the paths of all methods. Call it once, before the server starts. */
  register(server: Server): void;
  /** Answers calls. It has to be the first of the server's interceptors. */
  readonly interceptor: ServerInterceptor;
  /** Answers one call; for interceptors of your own, which know more about the connection. */
  serve(
    method: Parameters<ServerInterceptor>[0],
    call: ServerInterceptingCallInterface,
    transport: CallTransport,
  ): ServerInterceptingCall;
}

/**
 * Makes a bridge for services that `createServiceImplSpec` of `@connectrpc/connect` has made. If two of them implement the
 * same service, the last one counts.
 *
 * @throws RangeError for a timeout out of range
 */
export function createGrpcBridge(services: readonly ServiceImplSpec[], options: BridgeOptions = {}): GrpcBridge {
  const settings = settingsOf(options);
  const methods = new Map<string, MethodImplSpec>();
  for (const { service, methods: specs } of services) {
    for (const spec of Object.values(specs)) methods.set(`/${service.typeName}/${spec.method.name}`, spec);
  }

  function serve(
    { path }: Parameters<ServerInterceptor>[0],
    call: ServerInterceptingCallInterface,
    transport: CallTransport,
  ): ServerInterceptingCall {
    return new ServerInterceptingCall(call, {
      start: (next) => {
        const spec = methods.get(path);
        if (spec === undefined) next();
        else if (spec.kind === "unary") new UnaryCall(spec, path, call, transport, settings).start();
        else new StreamedCall(spec, path, call, transport, settings).start();
      },
    });
  }

  return {
    register: (server) => {
      // grpc-js passes bytes through, so that the bridge decodes messages and chooses the errors.
      for (const path of methods.keys()) server.register<Buffer, Buffer>(path, neverCalled, identity, identity, "bidi");
    },
    interceptor: (method, call) =>
      methods.has(method.path) ? serve(method, call, transportOf(call)) : new ServerInterceptingCall(call),
    serve,
  };
}

const identity = (bytes: Buffer): Buffer => bytes;

function neverCalled(): never {
  throw new Error("The bridge is not among the interceptors of this grpc-js server. Add `bridge.interceptor` to them.");
}
