import type { ConnectError } from "@connectrpc/connect";
import { toConnectError } from "../errors.ts";
import type { RequestCheck } from "../validation/request-check.ts";

/**
 * A handler's output that can be ended from outside, at once, even while the handler waits and heeds no signal: a signal
 * alone ends nothing, and an idle stream would outlive its deadline.
 *
 * Written by hand: an async generator costs three promises a message, and racing each message against one lasting
 * promise would leave a reaction on it for every message until the stream ends.
 */
export class GuardedStream<T> implements AsyncIterableIterator<T> {
  readonly #onOver: (error: ConnectError | undefined) => void;
  #source: AsyncIterator<T> | undefined;
  #over = false;
  #failure: ConnectError | undefined;
  #rejectPending: ((error: ConnectError) => void) | undefined;

  /** `onOver` is called once, with the error that ended the stream, if any. */
  constructor(onOver: (error: ConnectError | undefined) => void) {
    this.#onOver = onOver;
  }

  start(source: AsyncIterable<T>): void {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** Ends the stream with an error. Does nothing when it is over. */
  stop(error: ConnectError): void {
    if (this.#over) return;
    this.#finish(error);
    this.#rejectPending?.(error);
    this.#rejectPending = undefined;
    this.#leaveSource();
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const source = this.#source;
    if (this.#over || source === undefined) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => {
      this.#rejectPending = reject;
      source.next().then(
        (result) => {
          this.#rejectPending = undefined;
          if (result.done === true) this.#finish(undefined);
          resolve(result);
        },
        (thrown: unknown) => {
          this.#rejectPending = undefined;
          if (this.#over) return;
          const error = toConnectError(thrown);
          this.#finish(error);
          reject(error);
        },
      );
    });
  }

  /** The consumer wants no more: the caller is gone, or what it got could not be sent. */
  return(): Promise<IteratorResult<T>> {
    if (!this.#over) {
      this.#finish(undefined);
      this.#leaveSource();
    }
    return Promise.resolve({ done: true, value: undefined });
  }

  throw(thrown: unknown): Promise<IteratorResult<T>> {
    this.stop(toConnectError(thrown));
    return Promise.reject(thrown);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #finish(error: ConnectError | undefined): void {
    if (this.#over) return;
    this.#over = true;
    this.#failure = error;
    this.#onOver(error);
  }

  /** Lets the handler clean up. A generator does so when what it waits for settles; nobody waits for it here. */
  #leaveSource(): void {
    this.#source?.return?.().then(undefined, () => undefined);
  }
}

/** Checks each message of a caller's stream on its way to the handler. Costs nothing when there is nothing to check. */
export function checkedInput<T extends object>(
  input: AsyncIterable<T>,
  check: RequestCheck | undefined,
): AsyncIterable<T> {
  if (check === undefined) return input;
  return {
    [Symbol.asyncIterator]: () => {
      const source = input[Symbol.asyncIterator]();
      return {
        next: async () => {
          const result = await source.next();
          if (result.done !== true) check(result.value);
          return result;
        },
        return: () => source.return?.() ?? Promise.resolve({ done: true, value: undefined }),
      };
    },
  };
}
