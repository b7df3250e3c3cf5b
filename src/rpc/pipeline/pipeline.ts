import type { DescMethod, DescService } from "@bufbuild/protobuf";
import {
  createServiceImplSpec,
  type HandlerContext,
  type MethodImplSpec,
  type ServiceImpl,
  type ServiceImplSpec,
} from "@connectrpc/connect";
import type { Logger } from "../../../common/logging/logger.ts";
import type { Refusal } from "../../domain/errors.ts";
import type { Caller } from "../../domain/principal.ts";
import type { Metrics } from "../../telemetry/metrics/metrics.ts";
import type { Tracing } from "../../telemetry/tracing/tracing.ts";
import { type CallLimits, createCallLimiter } from "../callers/call-limits.ts";
import { peerKey } from "../callers/call-values.ts";
import { networkOf } from "../callers/network.ts";
import { compileRequestCheck } from "../validation/request-check.ts";
import { runBounded } from "./bounded-call.ts";
import { type AdmissionRules, CallAdmission } from "./call-admission.ts";
import { type CallRecord, createCallRecorder } from "./call-record.ts";
import { COSTLY_METHODS, CostlyCalls } from "./costly-call-queue.ts";
import { checkedInput } from "./guarded-stream.ts";
import { type Access, MethodAccess } from "./method-access.ts";
import { type OpenStream, OpenStreams, type StreamSteps } from "./open-streams.ts";
import { traceStream, traceUnary } from "./traced-call.ts";
import { whenSettled } from "./when-settled.ts";

export interface PipelineOptions {
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Undefined: tracing is off, and calls do nothing for it. */
  readonly tracing?: Tracing | undefined;
  /** Called before every call. A refusal rejects the call, for example DRAINING while the replica stops. */
  readonly admission?: () => Refusal | undefined;
  /** Undefined: every caller may call every method, as in tests of handlers. */
  readonly access?: Access;
  /**
   * The deadline of a unary call whose caller sets none, in milliseconds. Default 10 s: longer than changes and heartbeats wait
   * for an unavailable database, so that callers get that error and not the deadline's.
   */
  readonly defaultDeadlineMs?: number;
  /** The longest deadline of a unary call, in milliseconds. Longer ones are shortened to it. Default 60 s. */
  readonly maxDeadlineMs?: number;
  /** Limits of one caller. Default: unlimited. */
  readonly callLimits?: CallLimits;
  /** The key under which limits count a call without a principal. Default: its address, or its IPv6 network. */
  readonly limitKey?: (context: HandlerContext) => string;
  /** Unary calls that take at least as long are logged as slow, in milliseconds. Default 1 s. */
  readonly slowMs?: number;
}

type UnaryImpl = Extract<MethodImplSpec, { kind: "unary" }>["impl"];

export interface WrapOptions {
  /** False for services that are served during a drain, such as health. Default true. */
  readonly admission?: boolean;
}

/** The steps that every call needs, around the handlers of both listeners. */
export interface Pipeline {
  /** Wraps an implementation, for both listeners. Methods that it lacks answer UNIMPLEMENTED. */
  wrap<S extends DescService>(desc: S, impl: Partial<ServiceImpl<S>>, options?: WrapOptions): ServiceImplSpec;
  /** The open streams of both listeners. */
  readonly openStreams: ReadonlySet<OpenStream>;
  /** Ends all open streams, for example with DRAINING. */
  endStreams(refusal: Refusal): void;
  /** The number of calls in progress, unary and streams. */
  readonly callsInProgress: number;
}

/**
 * Creates the pipeline: admission, rate limits, authentication, authorization, deadline, validation by the rules of the
 * contract, error details, log and metrics.
 *
 * A unary call always has a deadline. When it passes, the caller gets a response even if the handler ignores the signal. A
 * stream has its caller's deadline, if any. The signal in a handler's context is aborted at the deadline, when the
 * caller cancels or disconnects, and when the pipeline ends the stream. Its reason is the error that the caller gets.
 */
export function createPipeline(options: PipelineOptions): Pipeline {
  const defaultDeadlineMs = options.defaultDeadlineMs ?? 10_000;
  const maxDeadlineMs = options.maxDeadlineMs ?? 60_000;
  const rules: AdmissionRules = {
    limiter: options.callLimits === undefined ? undefined : createCallLimiter(options.callLimits),
    limitKey: options.limitKey ?? ((context) => networkOf(context.values.get(peerKey).address)),
  };
  const recorder = createCallRecorder(options.log, options.metrics, options.slowMs ?? 1_000);
  const { tracing } = options;
  const streams = new OpenStreams();
  const costly = new CostlyCalls();

  function wrap<S extends DescService>(desc: S, impl: Partial<ServiceImpl<S>>, wrapOptions?: WrapOptions) {
    const refusal = wrapOptions?.admission === false ? undefined : options.admission;
    const methods: Record<string, MethodImplSpec> = {};
    for (const [name, spec] of Object.entries(createServiceImplSpec(desc, impl).methods)) {
      methods[name] = wrapMethod(spec, refusal);
    }
    return { service: desc, methods };
  }

  function wrapMethod(spec: MethodImplSpec, refusal: PipelineOptions["admission"]): MethodImplSpec {
    const { method } = spec;
    const check = compileRequestCheck(method.input);
    const access = new MethodAccess(method, options.access);
    const admission = new CallAdmission(access, rules, refusal);
    const records = recorder.of(method);
    switch (spec.kind) {
      case "unary": {
        const run = costlyAware(auditedImpl(spec.impl, access, check), method.name, admission);
        return {
          kind: spec.kind,
          method: spec.method,
          impl: (request, context) =>
            unary(method, context, records.start(context), (record) =>
              runBounded(context, record, deadlineMs(context), (bounded) =>
                whenSettled(admission.admit(bounded), (caller) => run(request, caller, bounded)),
              ),
            ),
        };
      }
      case "client_streaming":
        // Bounded like a unary call: all of its input has to arrive before the deadline.
        return {
          kind: spec.kind,
          method: spec.method,
          impl: (requests, context) =>
            unary(method, context, records.start(context), (record) =>
              runBounded(context, record, deadlineMs(context), (bounded) =>
                whenSettled(admission.admit(bounded), () => spec.impl(checkedInput(requests, check), bounded)),
              ),
            ),
        };
      case "server_streaming":
        return {
          kind: spec.kind,
          method: spec.method,
          impl: (request, context) =>
            stream(method, context, records.start(context), {
              admit: (bounded) => admission.admit(bounded),
              hold: (caller, bounded) => {
                check?.(request);
                return admission.holdWatch(request, caller, bounded);
              },
              handle: (bounded) => spec.impl(request, bounded),
            }),
        };
      case "bidi_streaming":
        return {
          kind: spec.kind,
          method: spec.method,
          impl: (requests, context) =>
            stream(method, context, records.start(context), {
              admit: (bounded) => admission.admit(bounded),
              hold: (caller, bounded) => admission.holdStream(caller, bounded),
              handle: (bounded) => spec.impl(checkedInput(requests, check), bounded),
            }),
        };
    }
  }

  /** Runs a unary call, within its span if tracing is on. */
  function unary<Output>(
    method: DescMethod,
    context: HandlerContext,
    record: CallRecord,
    run: (record: CallRecord) => Promise<Output>,
  ): Promise<Output> {
    if (tracing === undefined) return run(record);
    const traced = traceUnary(tracing, method, context, record);
    return traced.run(() => run(traced.record));
  }

  /** Serves a stream. Its admission is within the span of its opening. Its handler is in no span: it may run for hours. */
  function stream<Message extends object>(
    method: DescMethod,
    context: HandlerContext,
    record: CallRecord,
    steps: Omit<StreamSteps<Message>, "record">,
  ): AsyncIterable<Message> {
    if (tracing === undefined) return streams.serve(method, context, { ...steps, record });
    const traced = traceStream(tracing, method, context, record);
    return streams.serve(method, context, {
      record: traced.record,
      admit: (bounded) => traced.run(() => steps.admit(bounded)),
      hold: steps.hold,
      handle: (bounded) => tracing.detached(() => steps.handle(bounded)),
    });
  }

  /** Queues the calls of methods that are costly. */
  function costlyAware(impl: UnaryImpl, name: string, admission: CallAdmission) {
    const isCostly = COSTLY_METHODS.has(name);
    return (request: Parameters<UnaryImpl>[0], caller: Caller, context: HandlerContext): ReturnType<UnaryImpl> => {
      if (!isCostly) return impl(request, context);
      const connection = context.values.get(peerKey);
      return costly.run(admission.callerKey(caller, context), connection, context.signal, () => impl(request, context));
    };
  }

  /** The deadline of a unary call, in milliseconds from now. */
  function deadlineMs(context: HandlerContext): number {
    return Math.min(context.timeoutMs() ?? defaultDeadlineMs, maxDeadlineMs);
  }

  return {
    wrap,
    openStreams: streams.open,
    endStreams: (refusal) => streams.endAll(refusal),
    get callsInProgress() {
      return recorder.inProgress;
    },
  };
}

/** Validates the request, and writes a successful call to the audit log. */
function auditedImpl(impl: UnaryImpl, access: MethodAccess, check: ReturnType<typeof compileRequestCheck>): UnaryImpl {
  return (request, context) => {
    check?.(request);
    const output = impl(request, context);
    if (!access.audits) return output;
    return whenSettled(output, (response) => {
      access.succeeded(context, request, response);
      return response;
    });
  };
}
