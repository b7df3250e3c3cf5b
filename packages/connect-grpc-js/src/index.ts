// Serves implementations of Connect services on @grpc/grpc-js.
export { createGrpcBridge, type GrpcBridge } from "./bridge.ts";
export { createGrpcJsServer, type GrpcJsServer } from "./grpc-js-server.ts";
export { ChildContext, isCallEnded, LazyContext, onCallEnd, requestHeaderOf } from "./lazy-context.ts";
export { LazySignal } from "./lazy-signal.ts";
export {
  type MessageListener,
  type MessageSubscription,
  type SubscribableMessages,
  subscribe,
} from "./message-listener.ts";
export { type MessageSource, SourceStream, sourceOf } from "./message-source.ts";
export { type BridgeOptions, type MessageCodec, protobufCodec, toConnectError } from "./options.ts";
export { errorStatus, explainedStatus, type GrpcStatus } from "./status.ts";
export { type CallTransport, type ResponseCompression, type Sending, transportOf } from "./transport.ts";
