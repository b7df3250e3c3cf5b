/** A stream's input that a test sends message by message, and ends as a client would. */
export class PushedInput<T> implements AsyncIterableIterator<T> {
  readonly #waiting: T[] = [];
  #ended = false;
  #failure: Error | undefined;
  #wake: (() => void) | undefined;
  /** Whether the reader has received the failure. */
  failed = false;

  send(...messages: T[]): void {
    this.#waiting.push(...messages);
    this.#wake?.();
  }

  /** Half-closes. */
  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  /** Fails like a lost connection. */
  fail(error: Error): void {
    this.#failure = error;
    this.#wake?.();
  }

  async next(): Promise<IteratorResult<T>> {
    for (;;) {
      const value = this.#waiting.shift();
      if (value !== undefined) return { done: false, value };
      if (this.#failure !== undefined) {
        this.failed = true;
        throw this.#failure;
      }
      if (this.#ended) return { done: true, value: undefined };
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async return(): Promise<IteratorResult<T>> {
    this.end();
    return { done: true, value: undefined };
  }

  /** Connect's clients request it, and throw the error that ended the call into the input. */
  async throw(reason: unknown): Promise<IteratorResult<T>> {
    this.end();
    throw reason;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
