import type { DescMethodUnary, DescService } from "@bufbuild/protobuf";
import type { ContextValues } from "@connectrpc/connect";
import type { Metadata, ServerInterceptingCallInterface } from "@grpc/grpc-js";
import type { CallTransport } from "./call.ts";
import { LateContext } from "./late-context.ts";
import { headersOf, metadataOf } from "./status.ts";

/** The context of a unary call on the gRPC listener. */
export class GrpcContext extends LateContext {
  readonly method: DescMethodUnary;
  readonly protocolName = "grpc";
  readonly requestMethod = "POST";
  readonly timeoutMs: () => number | undefined;
  readonly values: ContextValues;
  readonly #path: string;
  readonly #call: ServerInterceptingCallInterface;
  readonly #metadata: Metadata;
  #requestHeader: Headers | undefined;
  #responseHeader: Headers | undefined;
  #responseTrailer: Headers | undefined;

  constructor(
    method: DescMethodUnary,
    path: string,
    call: ServerInterceptingCallInterface,
    metadata: Metadata,
    transport: CallTransport,
  ) {
    super();
    this.method = method;
    this.#path = path;
    this.#call = call;
    this.#metadata = metadata;
    this.values = transport.contextValues();
    const deadline = Number(call.getDeadline());
    this.timeoutMs = deadline === Number.POSITIVE_INFINITY ? noTimeout : () => deadline - Date.now();
  }

  get service(): DescService {
    return this.method.parent;
  }

  get url(): string {
    return `http://${this.#call.getHost()}${this.#path}`;
  }

  get requestHeader(): Headers {
    this.#requestHeader ??= new Headers(headersOf(this.#metadata));
    return this.#requestHeader;
  }

  header(name: string): string | null {
    const values = this.#metadata.get(name);
    return values.length === 0 ? null : values.join(", ");
  }

  get responseHeader(): Headers {
    this.#responseHeader ??= new Headers();
    return this.#responseHeader;
  }

  get responseTrailer(): Headers {
    this.#responseTrailer ??= new Headers();
    return this.#responseTrailer;
  }

  /** What the handler set; null for nothing. */
  get headersToSend(): Metadata | null {
    return this.#responseHeader === undefined ? null : metadataOf(this.#responseHeader);
  }

  get trailersToSend(): Metadata | null {
    return this.#responseTrailer === undefined ? null : metadataOf(this.#responseTrailer);
  }
}

function noTimeout(): undefined {}
