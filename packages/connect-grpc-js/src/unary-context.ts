import type { DescMethodUnary, DescService } from "@bufbuild/protobuf";
import type { ContextValues } from "@connectrpc/connect";
import type { Metadata, ServerInterceptingCallInterface } from "@grpc/grpc-js";
import { LazyContext } from "./lazy-context.ts";
import { headersOf, metadataOf } from "./status.ts";
import type { CallTransport } from "./transport.ts";

/** The context of a unary call. */
export class UnaryContext extends LazyContext {
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

  /** The headers that the handler has set; null for none. */
  get headersToSend(): Metadata | null {
    return this.#responseHeader === undefined ? null : metadataOf(this.#responseHeader);
  }

  /** The trailers that the handler has set; null for none. */
  get trailersToSend(): Metadata | null {
    return this.#responseTrailer === undefined ? null : metadataOf(this.#responseTrailer);
  }
}

function noTimeout(): undefined {}
