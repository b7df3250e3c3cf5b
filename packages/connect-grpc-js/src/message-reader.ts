import type { InputListener, ListenableInput, MessageInput } from "./message-input.ts";

/**
 * A caller's stream of messages, read one by one: the next is asked for only when the handler wants it, so a slow
 * handler slows its caller down. Half-close ends it; anything else that ends the call makes it throw. Its end must
 * not be taken for more than that: grpc-js's clients half-close a stream before they cancel it.
 */
export class MessageReader<T> implements AsyncIterableIterator<T>, ListenableInput<T> {
  readonly #request: () => void;
  #waiting: { resolve: (result: IteratorResult<T>) => void; reject: (error: unknown) => void } | undefined;
  #listener: InputListener<T> | undefined;
  #asking = false;
  #askAgain = false;
  #ended = false;
  #failure: { readonly error: unknown } | undefined;

  /** `request` asks for one message or the end. */
  constructor(request: () => void) {
    this.#request = request;
  }

  push(message: T): void {
    const listener = this.#listener;
    if (listener !== undefined) {
      if (listener.message(message)) this.#ask();
      return;
    }
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve({ done: false, value: message });
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#failure === undefined) this.#listener?.end();
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve({ done: true, value: undefined });
  }

  fail(error: unknown): void {
    if (this.#failure !== undefined || this.#ended) return;
    this.#failure = { error };
    this.#listener?.fail(error);
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.reject(error);
  }

  /** To be used instead of the iterator, not beside it. */
  listen(listener: InputListener<T>): MessageInput {
    this.#listener = listener;
    if (this.#failure !== undefined) listener.fail(this.#failure.error);
    else if (this.#ended) listener.end();
    else this.#ask();
    return {
      resume: () => this.#ask(),
      leave: () => {
        this.#listener = IGNORE;
      },
    };
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure.error);
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    if (this.#waiting !== undefined) return Promise.reject(new Error("a stream of messages has one reader"));
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#request();
    });
  }

  return(): Promise<IteratorResult<T>> {
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Messages may come within the asking: they are a loop and no recursion, however many wait. */
  #ask(): void {
    if (this.#asking) {
      this.#askAgain = true;
      return;
    }
    this.#asking = true;
    do {
      this.#askAgain = false;
      if (!this.#ended && this.#failure === undefined) this.#request();
    } while (this.#askAgain);
    this.#asking = false;
  }
}

const IGNORE: InputListener<unknown> = { message: () => false, end: () => undefined, fail: () => undefined };
