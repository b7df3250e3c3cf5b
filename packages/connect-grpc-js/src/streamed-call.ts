import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type MethodImplSpec } from "@connectrpc/connect";
import type { Metadata, ServerInterceptingCallInterface } from "@grpc/grpc-js";
import { type CallContext, callContext, encode, endReason, notOneRequest, withEncoding } from "./call.ts";
import { sendCompressed } from "./compressed-message.ts";
import { MessageReader } from "./message-reader.ts";
import { type MessageSource, sourceOf } from "./message-source.ts";
import type { BridgeSettings } from "./options.ts";
import { errorStatus, type GrpcStatus, metadataOf, okStatus } from "./status.ts";
import type { CallTransport, Sending } from "./transport.ts";

/** Bytes of responses that may wait to be sent before the call asks its handler for more. */
const WRITE_AHEAD_BYTES = 65_536;

type StreamSpec = Exclude<MethodImplSpec, { kind: "unary" }>;

/** A call with a stream of requests, of responses, or both, from its headers to its status. */
export class StreamedCall {
  readonly #spec: StreamSpec;
  readonly #path: string;
  readonly #call: ServerInterceptingCallInterface;
  readonly #transport: CallTransport;
  readonly #settings: BridgeSettings;
  readonly #reader: MessageReader<MessageShape<DescMessage>> | undefined;
  #context: CallContext | undefined;
  #metadata: Metadata | undefined;
  #request: MessageShape<DescMessage> | undefined;
  #requestTimer: NodeJS.Timeout | undefined;
  /** The status was sent, or the client cancelled. */
  #ended = false;
  #headersSent = false;
  #unwrittenBytes = 0;
  #sending: Sending | undefined;
  #source: MessageSource<MessageInitShape<DescMessage>> | undefined;
  #flowing = false;
  /** A message is being compressed. The next one has to wait for it. */
  #compressing = false;
  /** Ends the call of a client that does not read. It runs while the limit of unsent bytes is reached. */
  #writeTimer: NodeJS.Timeout | undefined;

  constructor(
    spec: StreamSpec,
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
    if (spec.kind === "client_streaming" || spec.kind === "bidi_streaming") {
      this.#reader = new MessageReader(() => call.startRead());
    }
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
    this.#context = callContext(this.#spec, this.#path, this.#call, metadata, this.#transport);
    this.#metadata = metadata;
    if (this.#reader === undefined) {
      this.#requestTimer = setTimeout(
        () => this.#fail(this.#settings.deadlineExceeded),
        this.#settings.requestTimeoutMs,
      );
      this.#call.startRead();
    } else {
      this.#handle();
    }
  }

  #onMessage(bytes: Buffer): void {
    if (this.#ended) return;
    let message: MessageShape<DescMessage>;
    try {
      message = this.#settings.codec.decode(this.#spec.method.input, bytes);
    } catch (thrown) {
      this.#failWith(thrown);
      return;
    }
    if (this.#reader !== undefined) {
      this.#reader.push(message);
    } else if (this.#request !== undefined) {
      this.#failWith(notOneRequest("more than one"));
    } else {
      this.#request = message;
      this.#call.startRead();
    }
  }

  #onHalfClose(): void {
    clearTimeout(this.#requestTimer);
    // Not a half-close: `onCancel` comes next, and ends the requests with an error.
    if (this.#transport.isReset()) return;
    if (this.#reader !== undefined) this.#reader.end();
    else if (this.#request === undefined) this.#failWith(notOneRequest("none"));
    else if (!this.#ended) this.#handle();
  }

  /** The status was sent, the client cancelled or is gone, or the deadline has passed and grpc-js has sent that. */
  #onCancel(): void {
    const context = this.#context;
    if (!this.#ended) {
      this.#ended = true;
      context?.abort(endReason(this.#call, this.#settings));
    }
    this.#sending?.close();
    clearTimeout(this.#requestTimer);
    clearTimeout(this.#writeTimer);
    this.#reader?.fail(context?.signal.reason ?? endReason(this.#call, this.#settings));
    this.#source?.close();
  }

  #handle(): void {
    const spec = this.#spec;
    const context = this.#context;
    if (context === undefined) return;
    try {
      switch (spec.kind) {
        case "client_streaming":
          if (this.#reader !== undefined) this.#respond(spec.impl(this.#reader, context));
          break;
        case "server_streaming":
          if (this.#request !== undefined) this.#pump(spec.impl(this.#request, context));
          break;
        case "bidi_streaming":
          if (this.#reader !== undefined) this.#pump(spec.impl(this.#reader, context));
          break;
      }
    } catch (thrown) {
      this.#failWith(thrown);
    }
  }

  #respond(output: Promise<MessageInitShape<DescMessage>> | MessageInitShape<DescMessage>): void {
    Promise.resolve(output).then(
      (message) => {
        if (this.#ended) return;
        try {
          this.#send(this.#encode(message), undefined);
        } catch (thrown) {
          return this.#failWith(thrown);
        }
        this.#succeed();
      },
      (thrown: unknown) => this.#failWith(thrown),
    );
  }

  #pump(output: AsyncIterable<MessageInitShape<DescMessage>>): void {
    const source = sourceOf(output);
    this.#source = source;
    source.onReadable(() => this.#flow());
    this.#flow();
  }

  /** Writes what the handler has, as long as the client reads it. */
  #flow(): void {
    const source = this.#source;
    // A call from within a write: the loop that made the write goes on.
    if (source === undefined || this.#ended || this.#flowing || this.#compressing) return;
    this.#flowing = true;
    try {
      while (this.#unwrittenBytes <= WRITE_AHEAD_BYTES && this.#hasCapacity()) {
        const message = source.take();
        if (this.#ended) return;
        if (message === undefined) {
          if (source.done) this.#succeed();
          return;
        }
        this.#write(message);
        if (this.#ended || this.#compressing) return;
      }
      this.#writeTimer ??= setTimeout(() => this.#giveUp(), this.#settings.writeTimeoutMs);
    } catch (thrown) {
      this.#failWith(thrown);
    } finally {
      this.#flowing = false;
    }
  }

  /** Whether the transport takes more. If not, it resumes this call later. */
  #hasCapacity(): boolean {
    this.#sending ??= this.#transport.sending();
    if (this.#sending.hasCapacity) return true;
    this.#sending.onCapacity(() => this.#resumeWriting());
    return false;
  }

  #giveUp(): void {
    const text = `the client read nothing from the stream for ${this.#settings.writeTimeoutMs} ms`;
    this.#failWith(new ConnectError(text, Code.ResourceExhausted));
  }

  #write(message: MessageInitShape<DescMessage>): void {
    const bytes = this.#encode(message);
    const compressed = this.#transport.compression?.compress(bytes);
    if (!(compressed instanceof Promise)) {
      this.#send(bytes, compressed);
      return;
    }
    this.#compressing = true;
    void compressed.then((settled) => {
      this.#compressing = false;
      if (this.#ended) return;
      try {
        this.#send(bytes, settled);
      } catch (thrown) {
        return this.#failWith(thrown);
      }
      this.#flow();
    });
  }

  #encode(message: MessageInitShape<DescMessage>): Buffer {
    return encode(this.#settings.codec, this.#spec.method.output, message);
  }

  #send(bytes: Buffer, compressed: Uint8Array | undefined): void {
    if (!this.#headersSent) {
      this.#headersSent = true;
      if (this.#settings.freeHeaders) this.#freeHeaders();
      const own = this.#context === undefined ? null : metadataOf(this.#context.responseHeader);
      // The headers name the compression of later messages, too. Each message says whether it is compressed.
      const headers = withEncoding(own, this.#transport.compression);
      if (headers !== null) this.#call.sendMetadata(headers);
    }
    const size = (compressed ?? bytes).byteLength;
    this.#unwrittenBytes += size;
    this.#sending?.add(size);
    const onSent = (): void => {
      this.#unwrittenBytes -= size;
      this.#sending?.sent(size);
      if (this.#writeTimer !== undefined && this.#unwrittenBytes <= WRITE_AHEAD_BYTES) this.#resumeWriting();
    };
    if (compressed === undefined) this.#call.sendMessage(bytes, onSent);
    else sendCompressed(this.#call, compressed, onSent);
  }

  #freeHeaders(): void {
    for (const name of Object.keys(this.#metadata?.getMap() ?? {})) this.#metadata?.remove(name);
    const headers = this.#context?.requestHeader;
    for (const name of [...(headers?.keys() ?? [])]) headers?.delete(name);
    this.#metadata = undefined;
  }

  #resumeWriting(): void {
    clearTimeout(this.#writeTimer);
    this.#writeTimer = undefined;
    this.#flow();
  }

  #succeed(): void {
    this.#finish(okStatus(this.#context === undefined ? null : metadataOf(this.#context.responseTrailer)));
  }

  #failWith(reason: unknown): void {
    this.#fail(this.#settings.toError(reason));
  }

  #fail(error: ConnectError): void {
    this.#finish(
      errorStatus(error, this.#context === undefined ? null : metadataOf(this.#context.responseTrailer)),
      error,
    );
  }

  #finish(status: GrpcStatus, error?: ConnectError): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#requestTimer);
    clearTimeout(this.#writeTimer);
    this.#call.sendStatus(status);
    this.#context?.abort(error ?? this.#settings.cancelled);
    // A handler that still reads gets the error, or else the end of the requests.
    if (error === undefined) this.#reader?.end();
    else this.#reader?.fail(error);
    this.#source?.close();
  }
}
