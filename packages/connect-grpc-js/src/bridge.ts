import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Code, type ConnectError, type MethodImplSpec, type ServiceImplSpec } from "@connectrpc/connect";
import {
  type Metadata,
  type Server,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
} from "@grpc/grpc-js";
import { encoded } from "../../../src/rpc/codec/encoded.ts";
import { CANCELLED, DEADLINE_EXCEEDED, fromLibrary, toConnectError } from "../../../src/rpc/errors/errors.ts";
import type { ListenerLimits } from "../../../src/rpc/sockets/limits.ts";
import type { Sending } from "../../../src/rpc/sockets/send-budget.ts";
import { type CallContext, type CallTransport, callContext, lateOrCancelled, oneRequest, readMessage } from "./call.ts";
import { MessageReader } from "./message-reader.ts";
import { type MessageSource, sourceOf } from "./message-source.ts";
import { errorStatus, type GrpcStatus, metadataOf, okStatus } from "./status.ts";
import { UnaryCall } from "./unary-call.ts";

/**
 * Serves implementations of Connect services through grpc-js, driven by descriptors: there is no line for any RPC.
 *
 * It works on grpc-js's server calls, as interceptors see them, and not on the Node streams that grpc-js makes for
 * handlers: those cost two thirds of an idle stream's memory, end without an error when the caller cancels, and hold
 * back the status of a call whose caller does not read.
 */
export interface GrpcBridge {
  /** Makes the server know the methods' paths. */
  register(server: Server): void;
  /** Answers a call; for an interceptor, which has to be the one next to the network. */
  serve(
    method: Parameters<ServerInterceptor>[0],
    call: ServerInterceptingCallInterface,
    transport: CallTransport,
  ): ServerInterceptingCall;
}

/** Messages that wait to be written before the handler is not asked for more, in bytes. */
const WRITE_AHEAD_BYTES = 65_536;

export function createGrpcBridge(
  services: readonly ServiceImplSpec[],
  limits: Pick<ListenerLimits, "requestMs" | "writeStallMs">,
): GrpcBridge {
  const methods = new Map<string, MethodImplSpec>();
  for (const { service, methods: specs } of services) {
    for (const spec of Object.values(specs)) methods.set(`/${service.typeName}/${spec.method.name}`, spec);
  }
  return {
    register: (server) => {
      // grpc-js hands over frames as they are and takes bytes: parsing is ours, and so is what is said when it fails.
      for (const path of methods.keys()) server.register<Buffer, Buffer>(path, neverCalled, identity, identity, "bidi");
    },
    serve: ({ path }, call, transport) =>
      new ServerInterceptingCall(call, {
        start: (next) => {
          const spec = methods.get(path);
          if (spec === undefined) next();
          else if (spec.kind === "unary") new UnaryCall(spec, path, call, transport, limits.requestMs).start();
          else new StreamedCall(spec, path, call, transport, limits).start();
        },
      }),
  };
}

const identity = (bytes: Buffer): Buffer => bytes;

function neverCalled(): never {
  throw new Error("the interceptor answers every call");
}

type StreamSpec = Exclude<MethodImplSpec, { kind: "unary" }>;

/** One call with a stream of messages, or two, from its headers to its status. */
class StreamedCall {
  readonly #spec: StreamSpec;
  readonly #path: string;
  readonly #call: ServerInterceptingCallInterface;
  readonly #transport: CallTransport;
  readonly #limits: Pick<ListenerLimits, "requestMs" | "writeStallMs">;
  readonly #reader: MessageReader<MessageShape<DescMessage>> | undefined;
  #context: CallContext | undefined;
  #metadata: Metadata | undefined;
  #request: MessageShape<DescMessage> | undefined;
  #requestTimer: NodeJS.Timeout | undefined;
  /** A status was sent, or the caller is gone: nothing more can be said. */
  #over = false;
  #headersSent = false;
  #unwrittenBytes = 0;
  #sending: Sending | undefined;
  #source: MessageSource<MessageInitShape<DescMessage>> | undefined;
  #flowing = false;
  /** Ends the call of a caller that reads nothing; set while as much as may be is unwritten. */
  #stalled: NodeJS.Timeout | undefined;

  constructor(
    spec: StreamSpec,
    path: string,
    call: ServerInterceptingCallInterface,
    transport: CallTransport,
    limits: Pick<ListenerLimits, "requestMs" | "writeStallMs">,
  ) {
    this.#spec = spec;
    this.#path = path;
    this.#call = call;
    this.#transport = transport;
    this.#limits = limits;
    if (spec.kind === "client_streaming" || spec.kind === "bidi_streaming") {
      this.#reader = new MessageReader(() => call.startRead());
    }
  }

  start(): void {
    this.#transport.onRefused((error) => this.#fail(error));
    this.#call.start({
      onReceiveMetadata: (metadata: Metadata) => this.#onHeaders(metadata),
      onReceiveMessage: (bytes: Buffer) => this.#onMessage(bytes),
      onReceiveHalfClose: () => this.#onHalfClose(),
      onCancel: () => this.#onCallOver(),
    });
  }

  #onHeaders(metadata: Metadata): void {
    this.#context = callContext(this.#spec, this.#path, this.#call, metadata, this.#transport);
    this.#metadata = metadata;
    if (this.#reader === undefined) {
      this.#requestTimer = setTimeout(() => this.#fail(DEADLINE_EXCEEDED), this.#limits.requestMs);
      this.#call.startRead();
    } else {
      this.#handle();
    }
  }

  #onMessage(bytes: Buffer): void {
    if (this.#over) return;
    let message: MessageShape<DescMessage>;
    try {
      message = readMessage(this.#spec.method.input, bytes);
    } catch (thrown) {
      this.#fail(toConnectError(thrown));
      return;
    }
    if (this.#reader !== undefined) {
      this.#reader.push(message);
    } else if (this.#request !== undefined) {
      this.#fail(oneRequest("extra"));
    } else {
      this.#request = message;
      this.#call.startRead();
    }
  }

  #onHalfClose(): void {
    clearTimeout(this.#requestTimer);
    // That the call is over comes next, and ends the input with an error.
    if (this.#transport.isReset()) return;
    if (this.#reader !== undefined) this.#reader.end();
    else if (this.#request === undefined) this.#fail(oneRequest("missing"));
    else if (!this.#over) this.#handle();
  }

  /** The status has left, or the caller cancelled or is lost. The deadline, too, comes here, after grpc-js said so. */
  #onCallOver(): void {
    const context = this.#context;
    if (!this.#over) {
      this.#over = true;
      context?.abort(lateOrCancelled(this.#call));
    }
    this.#sending?.close();
    clearTimeout(this.#requestTimer);
    clearTimeout(this.#stalled);
    this.#reader?.fail(context?.signal.reason ?? lateOrCancelled(this.#call));
    this.#source?.leave();
  }

  #handle(): void {
    const spec = this.#spec;
    const context = this.#context;
    if (context === undefined) return;
    try {
      switch (spec.kind) {
        case "client_streaming":
          if (this.#reader !== undefined) this.#answer(spec.impl(this.#reader, context));
          break;
        case "server_streaming":
          if (this.#request !== undefined) this.#pump(spec.impl(this.#request, context));
          break;
        case "bidi_streaming":
          if (this.#reader !== undefined) this.#pump(spec.impl(this.#reader, context));
          break;
      }
    } catch (thrown) {
      this.#fail(toConnectError(thrown));
    }
  }

  #answer(output: Promise<MessageInitShape<DescMessage>> | MessageInitShape<DescMessage>): void {
    Promise.resolve(output).then(
      (message) => {
        if (this.#over) return;
        try {
          this.#write(message);
        } catch (thrown) {
          return this.#fail(toConnectError(thrown));
        }
        this.#succeed();
      },
      (thrown: unknown) => this.#fail(toConnectError(thrown)),
    );
  }

  #pump(output: AsyncIterable<MessageInitShape<DescMessage>>): void {
    const source = sourceOf(output);
    this.#source = source;
    source.listen(() => this.#flow());
    this.#flow();
  }

  /** Writes what there is, as long as the caller reads it. */
  #flow(): void {
    const source = this.#source;
    // Within a write, the loop that made it goes on.
    if (source === undefined || this.#over || this.#flowing) return;
    this.#flowing = true;
    try {
      while (this.#unwrittenBytes <= WRITE_AHEAD_BYTES && this.#hasRoom()) {
        const message = source.take();
        if (this.#over) return;
        if (message === undefined) {
          if (source.over) this.#succeed();
          return;
        }
        this.#write(message);
        if (this.#over) return;
      }
      this.#stalled ??= setTimeout(() => this.#giveUp(), this.#limits.writeStallMs);
    } catch (thrown) {
      this.#fail(toConnectError(thrown));
    } finally {
      this.#flowing = false;
    }
  }

  /** Whether the connection's streams have not too much unread between them. Else this one goes on when they have less. */
  #hasRoom(): boolean {
    this.#sending ??= this.#transport.sending();
    if (this.#sending.hasRoom) return true;
    this.#sending.whenRoom(() => this.#resumeWriting());
    return false;
  }

  #giveUp(): void {
    this.#fail(
      fromLibrary(Code.ResourceExhausted, `nothing was read from the stream for ${this.#limits.writeStallMs} ms`),
    );
  }

  #write(message: MessageInitShape<DescMessage>): void {
    const bytes = encoded(this.#spec.method.output, message);
    if (!this.#headersSent) {
      this.#headersSent = true;
      this.#forgetHeaders();
      const headers = this.#context === undefined ? null : metadataOf(this.#context.responseHeader);
      if (headers !== null) this.#call.sendMetadata(headers);
    }
    this.#unwrittenBytes += bytes.byteLength;
    this.#sending?.add(bytes.byteLength);
    this.#call.sendMessage(bytes, () => {
      this.#unwrittenBytes -= bytes.byteLength;
      this.#sending?.sent(bytes.byteLength);
      if (this.#stalled !== undefined && this.#unwrittenBytes <= WRITE_AHEAD_BYTES) this.#resumeWriting();
    });
  }

  /**
   * The call is admitted, and nothing reads its headers any more. HPACK makes up to 16 KiB of a few bytes, and the stream may
   * be open for days.
   */
  #forgetHeaders(): void {
    for (const name of Object.keys(this.#metadata?.getMap() ?? {})) this.#metadata?.remove(name);
    const headers = this.#context?.requestHeader;
    for (const name of [...(headers?.keys() ?? [])]) headers?.delete(name);
    this.#metadata = undefined;
  }

  #resumeWriting(): void {
    clearTimeout(this.#stalled);
    this.#stalled = undefined;
    this.#flow();
  }

  #succeed(): void {
    this.#finish(okStatus(this.#context === undefined ? null : metadataOf(this.#context.responseTrailer)));
  }

  #fail(error: ConnectError): void {
    this.#finish(
      errorStatus(error, this.#context === undefined ? null : metadataOf(this.#context.responseTrailer)),
      error,
    );
  }

  #finish(status: GrpcStatus, error?: ConnectError): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#requestTimer);
    clearTimeout(this.#stalled);
    this.#call.sendStatus(status);
    this.#context?.abort(error ?? CANCELLED);
    // A handler that still reads hears the error, or else that there is no more.
    if (error === undefined) this.#reader?.end();
    else this.#reader?.fail(error);
    this.#source?.leave();
  }
}
