import {
  type Attributes,
  type Context,
  context,
  type Link,
  propagation,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from "@opentelemetry/api";

const NAME = "harborforge-agents";

/** Identifies a span, for links. */
export type TracedSpan = SpanContext;

/** What a span knows of a call, in the names of OpenTelemetry's conventions. */
export interface TracedCall {
  /** The full name of the method, such as `harborforge.agents.v1.AgentService/GetAgent`. */
  readonly method: string;
  readonly system: "grpc" | "connectrpc";
  /** A header of the request. */
  header(name: string): string | null;
}

/** How a call ended. */
export interface CallEnd {
  /** Its status code, as its protocol writes it. */
  readonly code: string;
  /** Whether the fault is the server's, by the conventions for gRPC. */
  readonly isFault: boolean;
}

/** The span of a call. */
export interface CallSpan {
  readonly traceId: string;
  /** The value of the header `traceresponse`, in the form of `traceparent`. */
  readonly traceParent: string;
  /** For other spans that name this one. */
  readonly link: Link;
  /** Runs a function within the span: what it starts belongs to the span. */
  run<T>(work: () => T): T;
  end(end: CallEnd): void;
}

const HEADERS = {
  get: ({ header }: TracedCall, name: string) => header(name) ?? undefined,
  // Only to list headers, which no standard propagator does.
  keys: () => [],
};

/**
 * Makes spans with OpenTelemetry's API, which the host of this program connects to an SDK. Parts get it only while tracing is
 * on, so that they do nothing for it otherwise.
 */
export class Tracing {
  readonly #tracer: Tracer;

  /** @param version of the service */
  constructor(version?: string) {
    this.#tracer = trace.getTracer(NAME, version);
  }

  /** Begins the server span of a call, in the trace that the caller's headers name. */
  openCall(call: TracedCall): CallSpan {
    const parent = propagation.extract(ROOT_CONTEXT, call, HEADERS);
    const span = this.#tracer.startSpan(
      call.method,
      { kind: SpanKind.SERVER, attributes: rpcAttributes(call) },
      parent,
    );
    return callSpan(span, trace.setSpan(parent, span));
  }

  /**
   * The end of a stream, as a short span of its own that is linked to the span of its opening: a span that is open for hours
   * would be exported only then.
   *
   * @param seconds how long the stream was open
   */
  endStream(call: TracedCall, opening: CallSpan, end: CallEnd, seconds: number): void {
    const attributes = { ...rpcAttributes(call), "harborforge.stream.duration": seconds };
    const span = this.#tracer.startSpan(
      `${call.method} end`,
      { kind: SpanKind.INTERNAL, attributes, links: [opening.link], root: true },
      ROOT_CONTEXT,
    );
    endSpan(span, end);
  }

  /** The span that is active here, for a later link. Undefined: there is none, or its trace is not recorded. */
  get activeSpan(): SpanContext | undefined {
    const span = trace.getActiveSpan();
    return span?.isRecording() === true ? span.spanContext() : undefined;
  }

  /** The id of the trace that this code runs in. */
  get traceId(): string | undefined {
    return trace.getActiveSpan()?.spanContext().traceId;
  }

  /** Runs a function outside of any span: what it does is not for the call that happened to start it. */
  detached<T>(work: () => T): T {
    return context.with(ROOT_CONTEXT, work);
  }

  /** Keeps the present span for a function that another call may run. */
  bind<Work extends (...args: never) => unknown>(work: Work): Work {
    return context.bind(context.active(), work);
  }

  /** One span for work that several calls share, with a link to each. Without calls there is no span. */
  async shared<T>(name: string, calls: readonly SpanContext[], work: () => Promise<T>): Promise<T> {
    if (calls.length === 0) return await work();
    const links = [...new Map(calls.map((call) => [call.spanId, { context: call }])).values()];
    const span = this.#tracer.startSpan(
      name,
      { links, root: true, attributes: { "harborforge.calls": links.length } },
      ROOT_CONTEXT,
    );
    try {
      return await context.with(trace.setSpan(ROOT_CONTEXT, span), work);
    } catch (error) {
      span.setStatus({ code: SpanStatusCode.ERROR });
      throw error;
    } finally {
      span.end();
    }
  }

  /**
   * Begins the span of a statement: its name, without SQL and values. Undefined outside of a recorded span.
   *
   * @returns a function that ends it; with the code of the error, if it failed
   */
  statement(name: string): ((errorCode?: string) => void) | undefined {
    if (this.activeSpan === undefined) return undefined;
    const attributes = { "db.system.name": "postgresql", "db.query.summary": name };
    const span = this.#tracer.startSpan(name, { kind: SpanKind.CLIENT, attributes });
    return (errorCode) => {
      if (errorCode !== undefined) {
        span.setAttribute("error.type", errorCode);
        span.setStatus({ code: SpanStatusCode.ERROR });
      }
      span.end();
    };
  }
}

function callSpan(span: Span, within: Context): CallSpan {
  const { traceId, spanId, traceFlags } = span.spanContext();
  return {
    traceId,
    traceParent: `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, "0")}`,
    link: { context: span.spanContext() },
    run: (work) => context.with(within, work),
    end: (end) => endSpan(span, end),
  };
}

/** https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/ */
function rpcAttributes({ method, system }: TracedCall): Attributes {
  return { "rpc.system.name": system, "rpc.method": method };
}

function endSpan(span: Span, { code, isFault }: CallEnd): void {
  span.setAttribute("rpc.response.status_code", code);
  if (isFault) {
    span.setAttribute("error.type", code);
    span.setStatus({ code: SpanStatusCode.ERROR });
  }
  span.end();
}
