import type { MessageListener, MessageSubscription, SubscribableMessages } from "./message-listener.ts";

/**
 * The requests of one stream. It asks for the next message only when the handler wants it, so a slow handler slows its client
 * down. A half-close ends it; anything else that ends the call makes it throw. A half-close does not mean that the client
 * succeeded: grpc-js's clients half-close a stream before they cancel it.
 */
export class MessageReader<T> implements AsyncIterableIterator<T>, SubscribableMessages<T> {
  readonly #request: () => void;
  #waiting: { resolve: (result: IteratorResult<T>) => void; reject: (error: unknown) => void } | undefined;
  #listener: MessageListener<T> | undefined;
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

  /** Replaces the iterator: a reader has either. */
  subscribe(listener: MessageListener<T>): MessageSubscription {
    this.#listener = listener;
    if (this.#failure !== undefined) listener.fail(this.#failure.error);
    else if (this.#ended) listener.end();
    else this.#ask();
    return {
      resume: () => this.#ask(),
      unsubscribe: () => {
        this.#listener = IGNORE;
      },
    };
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure.error);
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    if (this.#waiting !== undefined)
      return Promise.reject(new Error("next() was called before the last promise settled"));
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

  /** A loop, without recursion: `request` may push the message before it returns, and many may wait. */
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

const IGNORE: MessageListener<unknown> = { message: () => false, end: () => undefined, fail: () => undefined };
