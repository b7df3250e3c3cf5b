import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { ConnectError, MethodImplSpec } from "@connectrpc/connect";
import type { Metadata, ServerInterceptingCallInterface } from "@grpc/grpc-js";
import { encoded } from "../../../src/rpc/codec/encoded.ts";
import { CANCELLED, DEADLINE_EXCEEDED, toConnectError } from "../../../src/rpc/errors/errors.ts";
import type { Sending } from "../../../src/rpc/sockets/send-budget.ts";
import { type CallTransport, lateOrCancelled, oneRequest, readMessage } from "./call.ts";
import { errorStatus, type GrpcStatus, okStatus } from "./status.ts";
import { GrpcContext } from "./unary-context.ts";

type UnarySpec = Extract<MethodImplSpec, { kind: "unary" }>;

/** Smaller answers are not counted: a connection has no more of them than streams. */
const SMALL_ANSWER_BYTES = 4_096;

/** One unary call, from its headers to its status. */
export class UnaryCall {
  readonly #spec: UnarySpec;
  readonly #path: string;
  readonly #call: ServerInterceptingCallInterface;
  readonly #transport: CallTransport;
  readonly #requestMs: number;
  #context: GrpcContext | undefined;
  #request: MessageShape<DescMessage> | undefined;
  #requestTimer: NodeJS.Timeout | undefined;
  #sending: Sending | undefined;
  /** A status was sent, or the caller is gone: nothing more can be said. */
  #over = false;

  /** `requestMs` is how long the request may take to come, in milliseconds. */
  constructor(
    spec: UnarySpec,
    path: string,
    call: ServerInterceptingCallInterface,
    transport: CallTransport,
    requestMs: number,
  ) {
    this.#spec = spec;
    this.#path = path;
    this.#call = call;
    this.#transport = transport;
    this.#requestMs = requestMs;
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
    this.#context = new GrpcContext(this.#spec.method, this.#path, this.#call, metadata, this.#transport);
    this.#requestTimer = setTimeout(() => this.#fail(DEADLINE_EXCEEDED), this.#requestMs);
    this.#call.startRead();
  }

  #onMessage(bytes: Buffer): void {
    if (this.#over) return;
    try {
      const message = readMessage(this.#spec.method.input, bytes);
      if (this.#request !== undefined) throw oneRequest("extra");
      this.#request = message;
      this.#call.startRead();
    } catch (thrown) {
      this.#fail(toConnectError(thrown));
    }
  }

  #onHalfClose(): void {
    clearTimeout(this.#requestTimer);
    // That the call is over comes next.
    if (this.#over || this.#transport.isReset()) return;
    if (this.#request === undefined) this.#fail(oneRequest("missing"));
    else if (this.#context !== undefined) this.#handle(this.#request, this.#context);
  }

  /** The status has left, or the caller cancelled or is lost. The deadline, too, comes here, after grpc-js said so. */
  #onCallOver(): void {
    this.#sending?.close();
    clearTimeout(this.#requestTimer);
    if (this.#over) return;
    this.#over = true;
    this.#context?.end.abort(lateOrCancelled(this.#call));
  }

  #handle(request: MessageShape<DescMessage>, context: GrpcContext): void {
    const failed = (thrown: unknown): void => this.#fail(toConnectError(thrown));
    try {
      const output = this.#spec.impl(request, context);
      if (output instanceof Promise) output.then((response) => this.#answer(response), failed);
      else this.#answer(output);
    } catch (thrown) {
      failed(thrown);
    }
  }

  #answer(response: MessageInitShape<DescMessage>): void {
    if (this.#over) return;
    try {
      const bytes = encoded(this.#spec.method.output, response);
      const headers = this.#context?.headersToSend ?? null;
      if (headers !== null) this.#call.sendMetadata(headers);
      if (bytes.byteLength > SMALL_ANSWER_BYTES) {
        this.#sending = this.#transport.sending();
        this.#sending.add(bytes.byteLength);
      }
      this.#call.sendMessage(bytes, () => undefined);
    } catch (thrown) {
      this.#fail(toConnectError(thrown));
      return;
    }
    this.#finish(okStatus(this.#context?.trailersToSend ?? null));
  }

  #fail(error: ConnectError): void {
    this.#finish(errorStatus(error, this.#context?.trailersToSend ?? null), error);
  }

  #finish(status: GrpcStatus, error?: ConnectError): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#requestTimer);
    this.#call.sendStatus(status);
    this.#context?.end.abort(error ?? CANCELLED);
  }
}
