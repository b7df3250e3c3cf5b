import type { DescMethod, DescService } from "@bufbuild/protobuf";
import {
  createServiceImplSpec,
  type HandlerContext,
  type MethodImplSpec,
  type ServiceImpl,
  type ServiceImplSpec,
} from "@connectrpc/connect";
import { SourceStream, sourceOf } from "@harborforge/connect-grpc-js";
import type { Logger } from "pino";
import type { Registry } from "prom-client";
import type { Refusal } from "../../domain/errors.ts";
import type { Caller, Principal } from "../../domain/principal.ts";
import { type CallLimits, createCallLimiter } from "../callers/call-limits.ts";
import { peerKey } from "../callers/call-values.ts";
import { networkOf } from "../callers/network.ts";
import { CANCELLED, fromRefusal, toConnectError } from "../errors/errors.ts";
import { compileRequestCheck } from "../validation/request-check.ts";
import { type Access, Gatekeeper } from "./access.ts";
import { endReason, runBounded } from "./bounded-call.ts";
import { createCallRecorder, type MethodRecorder } from "./call-record.ts";
import { COSTLY_METHODS, CostlyCalls } from "./costly-calls.ts";
import { checkedInput, GuardedStream } from "./guarded-stream.ts";

export interface PipelineOptions {
  readonly log: Logger;
  readonly metrics: Registry;
  /** Asked before every call: a refusal is the answer to it, e.g. DRAINING while the replica stops. */
  readonly admission?: () => Refusal | undefined;
  /** Who may call what. Absent: everybody may do everything, as in tests of what comes behind it. */
  readonly access?: Access;
  /**
   * How long a unary call may take when its caller sets no deadline, in milliseconds. Default 10 s: longer than changes
   * and heartbeats wait for a database that is away, or nobody would ever be told that it is.
   */
  readonly defaultDeadlineMs?: number;
  /** The longest deadline of a unary call, whatever its caller asks for, in milliseconds. Default 60 s. */
  readonly maxDeadlineMs?: number;
  /** What one caller may begin and hold; unlimited unless told. */
  readonly callLimits?: CallLimits;
  /** Whom a call counts for while nobody knows who calls. Default: the address, or IPv6 network, that it comes from. */
  readonly limitKey?: (context: HandlerContext) => string;
  /** From how long on a unary call is logged as slow, in milliseconds. Default 1 s. */
  readonly slowMs?: number;
}

type UnaryImpl = Extract<MethodImplSpec, { kind: "unary" }>["impl"];

export interface WrapOptions {
  /** False for services that answer while the replica drains, as health does. Default true. */
  readonly admission?: boolean;
}

/** A stream that is being served. */
export interface OpenStream {
  readonly method: DescMethod;
  /** Who opened it; undefined until that is known. */
  readonly principal: Principal | undefined;
  /** Ends it: its handler's signal is aborted, and its caller gets this refusal. */
  end(refusal: Refusal): void;
}

/** What every call needs, once, around the handlers of both listeners. */
export interface Pipeline {
  /** Wraps an implementation; both listeners take the result. Methods that it lacks answer UNIMPLEMENTED. */
  wrap<S extends DescService>(desc: S, impl: Partial<ServiceImpl<S>>, options?: WrapOptions): ServiceImplSpec;
  /** The streams that are open now, through either listener. */
  readonly openStreams: ReadonlySet<OpenStream>;
  /** Ends all open streams, e.g. with DRAINING. */
  endStreams(refusal: Refusal): void;
  /** The number of calls in progress, unary and streams. */
  readonly callsInProgress: number;
}

/**
 * Makes the pipeline: admission, who calls and whether it may, limits, deadline, the rules of the contract, errors with
 * details, the log and the metrics.
 *
 * A unary call always has a deadline and is answered when it passes, whether its handler heeds the signal or not. A
 * stream has its caller's deadline, if any. The signal in a handler's context is aborted at the deadline, when the
 * caller cancels or is lost, and when the stream is ended from here; its reason is the error that the caller gets.
 */
export function createPipeline(options: PipelineOptions): Pipeline {
  const defaultDeadlineMs = options.defaultDeadlineMs ?? 10_000;
  const maxDeadlineMs = options.maxDeadlineMs ?? 60_000;
  const limiter = options.callLimits === undefined ? undefined : createCallLimiter(options.callLimits);
  const limitKey = options.limitKey ?? ((context) => networkOf(context.values.get(peerKey).address));
  const recorder = createCallRecorder(options.log, options.metrics, options.slowMs ?? 1_000);
  const openStreams = new Set<OpenStream>();
  const costly = new CostlyCalls();

  function wrap<S extends DescService>(desc: S, impl: Partial<ServiceImpl<S>>, wrapOptions?: WrapOptions) {
    const admission = wrapOptions?.admission === false ? undefined : options.admission;
    const inner = createServiceImplSpec(desc, impl);
    const methods: Record<string, MethodImplSpec> = {};
    for (const [name, spec] of Object.entries(inner.methods)) methods[name] = wrapMethod(spec, admission);
    return { service: desc, methods };
  }

  function wrapMethod(spec: MethodImplSpec, admission: PipelineOptions["admission"]): MethodImplSpec {
    const method = spec.method;
    const check = compileRequestCheck(method.input);
    const gate = new Gatekeeper(method, options.access);
    const recorded = recorder.of(method);
    // Whoever floods us with calls must not make a balancer that asks for our health find us dead.
    const kind = admission === undefined ? "standard " : "";
    const begin = (who: string): void => {
      const refusal = limiter?.begin(kind + who);
      if (refusal !== undefined) throw refusal;
    };
    /** Lets a call in, or not. What nobody is known by counts for where it comes from; all else for who it is. */
    const enter = (context: HandlerContext): Caller | Promise<Caller> => {
      const refusal = admission?.();
      if (refusal !== undefined) throw refusal;
      const known = (caller: Caller): Caller => {
        begin(callerKey(caller, context));
        gate.admit(caller, context);
        return caller;
      };
      let caller: Caller | Promise<Caller>;
      try {
        caller = gate.identify(context);
      } catch (thrown) {
        begin(limitKey(context));
        throw thrown;
      }
      if (!(caller instanceof Promise)) return known(caller);
      // Nobody waits for it where this throws.
      caller.catch(() => undefined);
      begin(limitKey(context));
      return caller.then(known);
    };
    const hold = (caller: Caller, context: HandlerContext): (() => void) | undefined =>
      limiter?.holdStream(kind + callerKey(caller, context));
    /** What a watch asks for is held as long as it is open. */
    const holdWith =
      (request: object): typeof hold =>
      (caller, context) => {
        check?.(request);
        const releaseStream = hold(caller, context);
        const count = valuesIn(request);
        if (limiter === undefined || releaseStream === undefined || count === 0) return releaseStream;
        try {
          const releaseValues = limiter.holdValues(kind + callerKey(caller, context), count);
          return () => {
            releaseStream();
            releaseValues();
          };
        } catch (thrown) {
          releaseStream();
          throw thrown;
        }
      };
    const isCostly = COSTLY_METHODS.has(method.name);
    switch (spec.kind) {
      case "unary": {
        const handled: UnaryImpl = (request, context) => {
          check?.(request);
          const output = spec.impl(request, context);
          if (!gate.audits) return output;
          return whenKnown(output, (response) => {
            gate.succeeded(context, request, response);
            return response;
          });
        };
        return {
          kind: spec.kind,
          method: spec.method,
          impl: (request, context) =>
            runBounded(context, recorded.start(), deadlineMs(context), (bounded) => {
              const caller = enter(bounded);
              const handle = (known: Caller): ReturnType<UnaryImpl> =>
                isCostly
                  ? costly.run(callerKey(known, bounded), context.values.get(peerKey), bounded.signal, () =>
                      handled(request, bounded),
                    )
                  : handled(request, bounded);
              return caller instanceof Promise ? caller.then(handle) : handle(caller);
            }),
        };
      }
      case "client_streaming":
        // Bounded as a unary call is: all of its input has to come within the deadline.
        return {
          kind: spec.kind,
          method: spec.method,
          impl: (requests, context) =>
            runBounded(context, recorded.start(), deadlineMs(context), (bounded) =>
              whenKnown(enter(bounded), () => spec.impl(checkedInput(requests, check), bounded)),
            ),
        };
      case "server_streaming":
        return {
          kind: spec.kind,
          method: spec.method,
          impl: (request, context) =>
            runStream(method, recorded, context, enter, holdWith(request), (bounded) => spec.impl(request, bounded)),
        };
      case "bidi_streaming":
        return {
          kind: spec.kind,
          method: spec.method,
          impl: (requests, context) =>
            runStream(method, recorded, context, enter, hold, (bounded) =>
              spec.impl(checkedInput(requests, check), bounded),
            ),
        };
    }
  }

  /** Whom a call counts for: its principal, however many of its credentials and addresses it uses. */
  function callerKey({ principal }: Caller, context: HandlerContext): string {
    return principal.role === "anyone" ? limitKey(context) : `${principal.role} ${principal.name}`;
  }

  /** How long a unary call may take, in milliseconds. */
  function deadlineMs(context: HandlerContext): number {
    return Math.min(context.timeoutMs() ?? defaultDeadlineMs, maxDeadlineMs);
  }

  function runStream<T extends object>(
    method: DescMethod,
    recorded: MethodRecorder,
    context: HandlerContext,
    enter: (context: HandlerContext) => Caller | Promise<Caller>,
    hold: (caller: Caller, context: HandlerContext) => (() => void) | undefined,
    handle: (context: HandlerContext) => AsyncIterable<T>,
  ): AsyncIterable<T> {
    const record = recorded.start();
    const controller = new AbortController();
    let release: (() => void) | undefined;
    let forgetCredential: (() => void) | undefined;
    const stream = new GuardedStream<T>((error) => {
      context.signal.removeEventListener("abort", onCallOver);
      openStreams.delete(entry);
      release?.();
      forgetCredential?.();
      record.end(error);
      // Also after a good end: what the handler started in the background hears of it by its signal.
      controller.abort(error ?? CANCELLED);
    });
    const onCallOver = (): void => stream.stop(endReason(context.signal.reason));
    const entry: OpenStream & { principal: Principal | undefined } = {
      method,
      principal: undefined,
      end: (refusal) => stream.stop(fromRefusal(refusal)),
    };
    openStreams.add(entry);
    const served = new SourceStream(stream);
    if (context.signal.aborted) {
      onCallOver();
      return served;
    }
    context.signal.addEventListener("abort", onCallOver);
    const bounded = { ...context, signal: controller.signal };
    const begin = (caller: Caller): void => {
      bounded.signal.throwIfAborted();
      entry.principal = caller.principal;
      release = hold(caller, bounded);
      // A stream ends with the right to it, however long ago it was opened.
      forgetCredential = caller.whileValid?.(entry.end);
      bounded.signal.throwIfAborted();
      stream.start(sourceOf(handle(bounded)));
    };
    const refuse = (thrown: unknown): void => stream.stop(toConnectError(thrown));
    try {
      const begun = whenKnown(enter(bounded), begin);
      if (begun instanceof Promise) begun.catch(refuse);
    } catch (thrown) {
      refuse(thrown);
    }
    return served;
  }

  return {
    wrap,
    openStreams,
    endStreams: (refusal) => {
      for (const stream of [...openStreams]) stream.end(refusal);
    },
    get callsInProgress() {
      return recorder.inProgress;
    },
  };
}

/** Items of lists in a request and in the messages in it: of a watch, the values of its filter. */
function valuesIn(message: object): number {
  let count = 0;
  for (const value of Object.values(message)) {
    if (Array.isArray(value)) count += value.length;
    else if (typeof value === "object" && value !== null) count += valuesIn(value);
  }
  return count;
}

/** Goes on at once where the value is there, which spares most calls a turn of the event loop. */
function whenKnown<T, R>(value: T | Promise<T>, go: (value: T) => R | Promise<R>): R | Promise<R> {
  return value instanceof Promise ? value.then(go) : go(value);
}
