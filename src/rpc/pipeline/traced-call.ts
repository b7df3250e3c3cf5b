import type { DescMethod } from "@bufbuild/protobuf";
import { Code, type ConnectError, type HandlerContext } from "@connectrpc/connect";
import { requestHeaderOf } from "@harborforge/connect-grpc-js";
import type { CallEnd, CallSpan, TracedCall, Tracing } from "../../telemetry/tracing/tracing.ts";
import { type CallRecord, codeText, methodName } from "./call-record.ts";

/** The response header that names the span of the call to its caller: https://w3c.github.io/trace-context/#traceresponse-header */
const RESPONSE_HEADER = "traceresponse";

/** Codes that are a fault of the server: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/ */
const FAULTS: ReadonlySet<Code> = new Set([
  Code.Unknown,
  Code.DeadlineExceeded,
  Code.Unimplemented,
  Code.Internal,
  Code.Unavailable,
  Code.DataLoss,
]);

/** A call with its span, which ends with the record. */
export interface TracedRecord {
  readonly record: CallRecord;
  /** Runs a step of the call within its span. */
  run<T>(step: () => T): T;
}

/** Begins the span of a unary call. */
export function traceUnary(
  tracing: Tracing,
  method: DescMethod,
  context: HandlerContext,
  record: CallRecord,
): TracedRecord {
  const call = tracedCall(method, context);
  const span = tracing.openCall(call);
  record.traceId = span.traceId;
  context.responseHeader.set(RESPONSE_HEADER, span.traceParent);
  const ended = (error: ConnectError | undefined): void => {
    // A failed call of gRPC has no headers, only trailers.
    if (error !== undefined && call.system === "grpc") context.responseTrailer.set(RESPONSE_HEADER, span.traceParent);
    span.end(endOf(call, error));
  };
  return { record: new UnaryRecord(record, ended), run: (step) => span.run(step) };
}

/** Begins the span of a stream's opening, which ends with the first message. The stream's end is a span of its own. */
export function traceStream(
  tracing: Tracing,
  method: DescMethod,
  context: HandlerContext,
  record: CallRecord,
): TracedRecord {
  const call = tracedCall(method, context);
  const span = tracing.openCall(call);
  record.traceId = span.traceId;
  return { record: new StreamRecord(record, tracing, call, span), run: (step) => span.run(step) };
}

class UnaryRecord implements CallRecord {
  readonly #record: CallRecord;
  readonly #onEnd: (error: ConnectError | undefined) => void;

  constructor(record: CallRecord, onEnd: (error: ConnectError | undefined) => void) {
    this.#record = record;
    this.#onEnd = onEnd;
  }

  get ended(): boolean {
    return this.#record.ended;
  }

  get traceId(): string | undefined {
    return this.#record.traceId;
  }

  begin(): void {
    this.#record.begin();
  }

  end(error: ConnectError | undefined): void {
    if (this.ended) return;
    this.#record.end(error);
    this.#onEnd(error);
  }
}

class StreamRecord implements CallRecord {
  readonly #record: CallRecord;
  readonly #tracing: Tracing;
  readonly #call: TracedCall;
  readonly #opening: CallSpan;
  readonly #openedAt = performance.now();
  #begun = false;

  constructor(record: CallRecord, tracing: Tracing, call: TracedCall, opening: CallSpan) {
    this.#record = record;
    this.#tracing = tracing;
    this.#call = call;
    this.#opening = opening;
  }

  get ended(): boolean {
    return this.#record.ended;
  }

  get traceId(): string | undefined {
    return this.#record.traceId;
  }

  begin(): void {
    if (this.#begun || this.ended) return;
    this.#begun = true;
    this.#record.begin();
    this.#opening.end(endOf(this.#call, undefined));
  }

  end(error: ConnectError | undefined): void {
    if (this.ended) return;
    this.#record.end(error);
    const end = endOf(this.#call, error);
    if (this.#begun)
      this.#tracing.endStream(this.#call, this.#opening, end, (performance.now() - this.#openedAt) / 1_000);
    else this.#opening.end(end);
  }
}

function tracedCall(method: DescMethod, context: HandlerContext): TracedCall {
  return {
    method: methodName(method),
    system: context.protocolName === "connect" ? "connectrpc" : "grpc",
    header: (name) => requestHeaderOf(context, name),
  };
}

/** The code as the protocol writes it: `NOT_FOUND` of gRPC is `not_found` of Connect. */
function endOf({ system }: TracedCall, error: ConnectError | undefined): CallEnd {
  const code = error === undefined ? "OK" : codeText(error.code);
  const isFault = error !== undefined && FAULTS.has(error.code);
  if (system === "grpc") return { code, isFault };
  return { code: code === "CANCELLED" ? "canceled" : code.toLowerCase(), isFault };
}
