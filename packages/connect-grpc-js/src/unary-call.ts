import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { ConnectError, MethodImplSpec } from "@connectrpc/connect";
import type { Metadata, ServerInterceptingCallInterface } from "@grpc/grpc-js";
import { encode, endReason, notOneRequest, withEncoding } from "./call.ts";
import { sendCompressed } from "./compressed-message.ts";
import type { BridgeSettings } from "./options.ts";
import { errorStatus, type GrpcStatus, okStatus } from "./status.ts";
import type { CallTransport, Sending } from "./transport.ts";
import { UnaryContext } from "./unary-context.ts";

type UnarySpec = Extract<MethodImplSpec, { kind: "unary" }>;

/** Smaller responses are not counted: the number of streams on a connection limits them. */
const SMALL_RESPONSE_BYTES = 4_096;

/** One unary call, from its headers to its status. */
export class UnaryCall {
  readonly #spec: UnarySpec;
  readonly #path: string;
  readonly #call: ServerInterceptingCallInterface;
  readonly #transport: CallTransport;
  readonly #settings: BridgeSettings;
  #context: UnaryContext | undefined;
  #request: MessageShape<DescMessage> | undefined;
  #requestTimer: NodeJS.Timeout | undefined;
  #sending: Sending | undefined;
  /** The status was sent, or the client cancelled. */
  #ended = false;

  constructor(
    spec: UnarySpec,
    path: string,
    call: ServerInterceptingCallInterface,
    transport: CallTransport,
    settings: BridgeSettings,
  ) {
    this.#spec = spec;
    this.#path = path;
    this.#call = call;
    this.#transport = transport;
    this.#settings = settings;
  }

  start(): void {
    this.#transport.onRejected((error) => this.#fail(error));
    this.#call.start({
      onReceiveMetadata: (metadata: Metadata) => this.#onHeaders(metadata),
      onReceiveMessage: (bytes: Buffer) => this.#onMessage(bytes),
      onReceiveHalfClose: () => this.#onHalfClose(),
      onCancel: () => this.#onCancel(),
    });
  }

  #onHeaders(metadata: Metadata): void {
    this.#context = new UnaryContext(this.#spec.method, this.#path, this.#call, metadata, this.#transport);
    this.#requestTimer = setTimeout(() => this.#fail(this.#settings.deadlineExceeded), this.#settings.requestTimeoutMs);
    this.#call.startRead();
  }

  #onMessage(bytes: Buffer): void {
    if (this.#ended) return;
    try {
      const message = this.#settings.codec.decode(this.#spec.method.input, bytes);
      if (this.#request !== undefined) throw notOneRequest("more than one");
      this.#request = message;
      this.#call.startRead();
    } catch (thrown) {
      this.#failWith(thrown);
    }
  }

  #onHalfClose(): void {
    clearTimeout(this.#requestTimer);
    // A reset is not a half-close: `onCancel` comes next.
    if (this.#ended || this.#transport.isReset()) return;
    if (this.#request === undefined) this.#failWith(notOneRequest("none"));
    else if (this.#context !== undefined) this.#handle(this.#request, this.#context);
  }

  /** The status was sent, the client cancelled or is gone, or the deadline has passed and grpc-js has sent that. */
  #onCancel(): void {
    this.#sending?.close();
    clearTimeout(this.#requestTimer);
    if (this.#ended) return;
    this.#ended = true;
    this.#context?.ending.abort(endReason(this.#call, this.#settings));
  }

  #handle(request: MessageShape<DescMessage>, context: UnaryContext): void {
    try {
      const output = this.#spec.impl(request, context);
      if (output instanceof Promise) {
        output.then(
          (response) => this.#respond(response),
          (thrown: unknown) => this.#failWith(thrown),
        );
      } else {
        this.#respond(output);
      }
    } catch (thrown) {
      this.#failWith(thrown);
    }
  }

  #respond(response: MessageInitShape<DescMessage>): void {
    if (this.#ended) return;
    try {
      const bytes = encode(this.#settings.codec, this.#spec.method.output, response);
      const compressed = this.#transport.compression?.compress(bytes);
      if (compressed instanceof Promise) void compressed.then((settled) => this.#send(bytes, settled));
      else this.#send(bytes, compressed);
    } catch (thrown) {
      this.#failWith(thrown);
    }
  }

  #send(bytes: Buffer, compressed: Uint8Array | undefined): void {
    if (this.#ended) return;
    try {
      const headers = this.#headers(compressed !== undefined);
      if (headers !== null) this.#call.sendMetadata(headers);
      const size = (compressed ?? bytes).byteLength;
      if (size > SMALL_RESPONSE_BYTES) {
        this.#sending = this.#transport.sending();
        this.#sending.add(size);
      }
      if (compressed === undefined) this.#call.sendMessage(bytes, () => undefined);
      else sendCompressed(this.#call, compressed, () => undefined);
    } catch (thrown) {
      this.#failWith(thrown);
      return;
    }
    this.#finish(okStatus(this.#context?.trailersToSend ?? null));
  }

  #headers(isCompressed: boolean): Metadata | null {
    const headers = this.#context?.headersToSend ?? null;
    return isCompressed ? withEncoding(headers, this.#transport.compression) : headers;
  }

  #failWith(reason: unknown): void {
    this.#fail(this.#settings.toError(reason));
  }

  #fail(error: ConnectError): void {
    this.#finish(errorStatus(error, this.#context?.trailersToSend ?? null), error);
  }

  #finish(status: GrpcStatus, error?: ConnectError): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#requestTimer);
    this.#call.sendStatus(status);
    this.#context?.ending.abort(error ?? this.#settings.cancelled);
  }
}
