/**
 * A caller's stream of messages, read one by one: the next is asked for only when the handler wants it, so a slow
 * handler slows its caller down. Half-close ends it; anything else that ends the call makes it throw. Its end must
 * not be taken for more than that: grpc-js's clients half-close a stream before they cancel it.
 */
export class MessageReader<T> implements AsyncIterableIterator<T> {
  readonly #request: () => void;
  #waiting: { resolve: (result: IteratorResult<T>) => void; reject: (error: unknown) => void } | undefined;
  #ended = false;
  #failure: { readonly error: unknown } | undefined;

  /** `request` asks for one message or the end. */
  constructor(request: () => void) {
    this.#request = request;
  }

  push(message: T): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve({ done: false, value: message });
  }

  end(): void {
    this.#ended = true;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve({ done: true, value: undefined });
  }

  fail(error: unknown): void {
    if (this.#failure !== undefined || this.#ended) return;
    this.#failure = { error };
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.reject(error);
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
}
