import type { ConnectError } from "@connectrpc/connect";
import type { MessageSource } from "@harborforge/connect-grpc-js";
import { toConnectError } from "../errors/error-table.ts";
import type { RequestCheck } from "../validation/request-check.ts";

/**
 * A handler's output that the pipeline can end at once, even while the handler waits and ignores its signal. With a
 * signal alone, an idle stream would outlive its deadline.
 */
export class GuardedStream<T extends object> implements MessageSource<T> {
  readonly #onOver: (error: ConnectError | undefined) => void;
  #onFirst: (() => void) | undefined;
  #source: MessageSource<T> | undefined;
  #ended = false;
  #failure: ConnectError | undefined;
  #onReadable: () => void = () => undefined;

  /**
   * `onOver` is called once, with the error that ended the stream, if any. `onFirst` is called once, with the first message.
   */
  constructor(onOver: (error: ConnectError | undefined) => void, onFirst?: () => void) {
    this.#onFirst = onFirst;
    this.#onOver = onOver;
  }

  /** Connects the handler's output. Call it at most once. The stream may be read before. */
  start(source: MessageSource<T>): void {
    if (this.#ended) {
      source.close();
      return;
    }
    this.#source = source;
    source.onReadable(() => this.#onReadable());
    this.#onReadable();
  }

  /** Ends the stream with an error. Does nothing if it has ended. */
  stop(error: ConnectError): void {
    if (this.#ended) return;
    this.#finish(error);
    this.#onReadable();
    this.#source?.close();
  }

  take(): T | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    const source = this.#source;
    if (this.#ended || source === undefined) return undefined;
    try {
      const message = source.take();
      if (message !== undefined) {
        if (this.#onFirst !== undefined) this.#begin(this.#onFirst);
        return message;
      }
      // Stopped during `take`: its notification came before the reader listened.
      if (this.#failure !== undefined) throw this.#failure;
      if (source.done) this.#finish(undefined);
      return undefined;
    } catch (thrown) {
      // Stopped during `take`: that is why it threw.
      if (this.#failure !== undefined) throw this.#failure;
      const error = toConnectError(thrown);
      this.#finish(error);
      source.close();
      throw error;
    }
  }

  get done(): boolean {
    return this.#ended && this.#failure === undefined;
  }

  onReadable(listener: () => void): void {
    this.#onReadable = listener;
  }

  /** The reader is gone: the caller disconnected, or a message could not be sent. */
  close(): void {
    if (this.#ended) return;
    this.#finish(undefined);
    this.#source?.close();
  }

  #begin(onFirst: () => void): void {
    this.#onFirst = undefined;
    onFirst();
  }

  #finish(error: ConnectError | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#failure = error;
    this.#onOver(error);
  }
}

/**
 * Validates each message of a caller's stream before the handler gets it. Returns the input itself if there is nothing to
 * validate.
 */
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
