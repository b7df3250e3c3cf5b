import type { DescMethod, DescService } from "@bufbuild/protobuf";
import type { ContextValues, HandlerContext } from "@connectrpc/connect";
import { LateSignal } from "./late-signal.ts";

/**
 * The context of a unary call, whose parts are made when somebody asks for them. Made at once, as the library does, they
 * cost a third of a call that looks at none.
 */
export abstract class LateContext implements HandlerContext {
  /** Aborted when the call is over. */
  readonly end: LateSignal = new LateSignal();

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

  /** As `requestHeader.get`. */
  abstract header(name: string): string | null;

  get signal(): AbortSignal {
    return this.end.signal;
  }
}

/** The same call for its handler, with an end of its own. */
export class BoundedContext extends LateContext {
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

/** A header of the request, by its name in lower case. */
export function requestHeaderOf(context: HandlerContext, name: string): string | null {
  return context instanceof LateContext ? context.header(name) : context.requestHeader.get(name);
}

/** Whether a call has ended. Asks for no signal, which costs more than the rest of a short call. */
export function isCallOver(context: HandlerContext): boolean {
  return context instanceof LateContext ? context.end.aborted : context.signal.aborted;
}

/**
 * Hears of the end of a call, at once where it is over, and then there is nothing more to hear. Returns how to hear no
 * more of it.
 */
export function onCallEnd(context: HandlerContext, listener: (reason: unknown) => void): (() => void) | undefined {
  if (context instanceof LateContext) {
    if (context.end.aborted) listener(context.end.reason);
    else context.end.onAbort(listener);
    return context.end.aborted ? undefined : nothing;
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

function nothing(): void {}
