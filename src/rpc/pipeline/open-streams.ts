import type { DescMethod } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { SourceStream, sourceOf } from "@harborforge/connect-grpc-js";
import type { Refusal } from "../../domain/errors.ts";
import type { Caller, Principal } from "../../domain/principal.ts";
import { CANCELLED, fromRefusal, toConnectError } from "../errors/error-table.ts";
import { endReason } from "./bounded-call.ts";
import type { CallRecord } from "./call-record.ts";
import { GuardedStream } from "./guarded-stream.ts";
import { whenSettled } from "./when-settled.ts";

/** A stream that is being served. */
export interface OpenStream {
  readonly method: DescMethod;
  /** Undefined until the caller is authenticated. */
  readonly principal: Principal | undefined;
  /** Ends the stream: aborts the signal of its handler, and sends this refusal to its caller. */
  end(refusal: Refusal): void;
}

/** The steps of one stream. */
export interface StreamSteps<T extends object> {
  readonly record: CallRecord;
  admit(context: HandlerContext): Caller | Promise<Caller>;
  /** Counts the stream until the function that it returns is called. @throws Refusal, and the stream ends with it */
  hold(caller: Caller, context: HandlerContext): (() => void) | undefined;
  handle(context: HandlerContext): AsyncIterable<T>;
}

/** Serves streams, and knows those that are open. */
export class OpenStreams {
  readonly #open = new Set<OpenStream>();

  get open(): ReadonlySet<OpenStream> {
    return this.#open;
  }

  endAll(refusal: Refusal): void {
    for (const stream of [...this.#open]) stream.end(refusal);
  }

  serve<T extends object>(method: DescMethod, context: HandlerContext, steps: StreamSteps<T>): AsyncIterable<T> {
    const controller = new AbortController();
    let release: (() => void) | undefined;
    let forgetCredential: (() => void) | undefined;
    const stream = new GuardedStream<T>(
      (error) => {
        context.signal.removeEventListener("abort", onCallOver);
        this.#open.delete(entry);
        release?.();
        forgetCredential?.();
        steps.record.end(error);
        // Also after a successful end: the handler may have started work in the background, which stops by this signal.
        controller.abort(error ?? CANCELLED);
      },
      () => steps.record.begin(),
    );
    const onCallOver = (): void => stream.stop(endReason(context.signal.reason));
    const entry: OpenStream & { principal: Principal | undefined } = {
      method,
      principal: undefined,
      end: (refusal) => stream.stop(fromRefusal(refusal)),
    };
    this.#open.add(entry);
    const served = new SourceStream(stream);
    if (context.signal.aborted) {
      onCallOver();
      return served;
    }
    context.signal.addEventListener("abort", onCallOver);
    const bounded = { ...context, signal: controller.signal };
    const start = (caller: Caller): void => {
      bounded.signal.throwIfAborted();
      entry.principal = caller.principal;
      release = steps.hold(caller, bounded);
      // A stream ends when its credential expires or is revoked.
      forgetCredential = caller.whileValid?.(entry.end);
      bounded.signal.throwIfAborted();
      stream.start(sourceOf(steps.handle(bounded)));
    };
    const fail = (thrown: unknown): void => stream.stop(toConnectError(thrown));
    try {
      const started = whenSettled(steps.admit(bounded), start);
      if (started instanceof Promise) started.catch(fail);
    } catch (thrown) {
      fail(thrown);
    }
    return served;
  }
}
