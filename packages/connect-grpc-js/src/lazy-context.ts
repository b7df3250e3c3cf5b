import type { DescMethod, DescService } from "@bufbuild/protobuf";
import type { ContextValues, HandlerContext } from "@connectrpc/connect";
import { LazySignal } from "./lazy-signal.ts";

/**
 * The context of a unary call, which makes its headers and its signal when they are first read. Connect's own context makes
 * them at once, which costs a third of a call whose handler reads none of them.
 */
export abstract class LazyContext implements HandlerContext {
  /** Aborted when the call ends. */
  readonly ending: LazySignal = new LazySignal();

  abstract readonly service: DescService;
  abstract readonly method: DescMethod;
  abstract readonly protocolName: string;
  abstract readonly requestMethod: string;
  abstract readonly url: string;
  abstract readonly requestHeader: Headers;
  abstract readonly responseHeader: Headers;
  abstract readonly responseTrailer: Headers;
  abstract readonly values: ContextValues;
  abstract readonly timeoutMs: () => number | undefined;

  /** The same as `requestHeader.get(name)`, without making all headers. */
  abstract header(name: string): string | null;

  get signal(): AbortSignal {
    return this.ending.signal;
  }
}

/** The context of a call with a signal and a timeout of its own; everything else is that of `outer`. */
export class ChildContext extends LazyContext {
  readonly #outer: HandlerContext;
  readonly timeoutMs: () => number;

  constructor(outer: HandlerContext, timeoutMs: () => number) {
    super();
    this.#outer = outer;
    this.timeoutMs = timeoutMs;
  }

  get service(): DescService {
    return this.#outer.service;
  }
  get method(): DescMethod {
    return this.#outer.method;
  }
  get protocolName(): string {
    return this.#outer.protocolName;
  }
  get requestMethod(): string {
    return this.#outer.requestMethod;
  }
  get url(): string {
    return this.#outer.url;
  }
  get requestHeader(): Headers {
    return this.#outer.requestHeader;
  }
  header(name: string): string | null {
    return requestHeaderOf(this.#outer, name);
  }
  get responseHeader(): Headers {
    return this.#outer.responseHeader;
  }
  get responseTrailer(): Headers {
    return this.#outer.responseTrailer;
  }
  get values(): ContextValues {
    return this.#outer.values;
  }
}

/** A header of the request, by its name in lower case; null if there is none. */
export function requestHeaderOf(context: HandlerContext, name: string): string | null {
  return context instanceof LazyContext ? context.header(name) : context.requestHeader.get(name);
}

/** Whether a call has ended. Cheaper than `context.signal.aborted`, which makes the signal. */
export function isCallEnded(context: HandlerContext): boolean {
  return context instanceof LazyContext ? context.ending.aborted : context.signal.aborted;
}

/**
 * Calls `listener` with the reason when the call ends; at once if it has ended. The context of a unary call has one such
 * listener: the last one.
 *
 * @returns a function that removes the listener; undefined if the call has ended
 */
export function onCallEnd(context: HandlerContext, listener: (reason: unknown) => void): (() => void) | undefined {
  if (context instanceof LazyContext) {
    const { ending } = context;
    if (ending.aborted) listener(ending.reason);
    else ending.onAbort(listener);
    return ending.aborted ? undefined : () => ending.onAbort(noop);
  }
  const { signal } = context;
  const onAbort = (): void => listener(signal.reason);
  if (signal.aborted) {
    onAbort();
    return undefined;
  }
  signal.addEventListener("abort", onAbort);
  return () => signal.removeEventListener("abort", onAbort);
}

function noop(): void {}
