import { Code, type ConnectError, type HandlerContext } from "@connectrpc/connect";
import { ChildContext, onCallEnd } from "@harborforge/connect-grpc-js";
import { CANCELLED, DEADLINE_EXCEEDED, toConnectError } from "../errors/error-table.ts";
import type { CallRecord } from "./call-record.ts";

/**
 * Runs a unary call. It settles when its deadline passes or its caller is gone, even if `handle` ignores its signal. The
 * signal of its context is aborted when it settles, however it ends.
 *
 * @param deadlineMs the time left, in milliseconds
 */
export function runBounded<T>(
  context: HandlerContext,
  record: CallRecord,
  deadlineMs: number,
  handle: (context: HandlerContext) => T | Promise<T>,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    new BoundedCall<T>(context, record, resolve, reject).run(deadlineMs, handle);
  });
}

/** One object instead of a closure for each event of the call. */
class BoundedCall<T> {
  readonly #outer: HandlerContext;
  readonly #record: CallRecord;
  readonly #resolve: (value: T) => void;
  readonly #reject: (error: ConnectError) => void;
  #context: ChildContext | undefined;
  #timer: NodeJS.Timeout | undefined;
  #unhear: (() => void) | undefined;

  constructor(
    outer: HandlerContext,
    record: CallRecord,
    resolve: (value: T) => void,
    reject: (error: ConnectError) => void,
  ) {
    this.#outer = outer;
    this.#record = record;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  run(deadlineMs: number, handle: (context: HandlerContext) => T | Promise<T>): void {
    const endsAt = performance.now() + deadlineMs;
    const context = new ChildContext(this.#outer, () => endsAt - performance.now());
    this.#context = context;
    const over = onCallEnd(this.#outer, (reason) => this.#fail(endReason(reason)));
    if (over === undefined) return;
    this.#unhear = over;
    this.#timer = setTimeout(() => this.#fail(DEADLINE_EXCEEDED), Math.max(0, deadlineMs));
    try {
      const output = handle(context);
      if (output instanceof Promise)
        output.then(
          (value) => this.#succeed(value),
          (thrown) => this.#fail(thrown),
        );
      else this.#succeed(output);
    } catch (thrown) {
      this.#fail(thrown);
    }
  }

  #succeed(value: T): void {
    if (this.#settle(undefined)) this.#resolve(value);
  }

  #fail(thrown: unknown): void {
    const error = toConnectError(thrown);
    if (this.#settle(error)) this.#reject(error);
  }

  #settle(error: ConnectError | undefined): boolean {
    if (this.#record.ended) return false;
    clearTimeout(this.#timer);
    this.#unhear?.();
    this.#record.end(error);
    // Also after a response: changes that the handler left waiting must not be made for a call that has ended.
    this.#context?.ending.abort(error ?? CANCELLED);
    return true;
  }
}

/** Why a call has ended: its deadline has passed, or else its caller is gone. */
export function endReason(reason: unknown): ConnectError {
  const error = toConnectError(reason);
  return error.code === Code.DeadlineExceeded ? error : CANCELLED;
}
