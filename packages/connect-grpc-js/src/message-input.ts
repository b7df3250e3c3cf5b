/** Hears the messages of a caller's stream, one after the other, and how it ends. Nothing here may throw. */
export interface InputListener<T> {
  /** True: the next one may come, at once. False: it must not before `MessageInput.resume`. */
  message(message: T): boolean;
  /** The caller will send no more. */
  end(): void;
  /** The stream broke off. */
  fail(reason: unknown): void;
}

/** A caller's stream that is being heard. */
export interface MessageInput {
  /** After a message that was answered with false: the next one may come. */
  resume(): void;
  /** Nothing more is to be heard. The stream itself is not given up: that may destroy what still answers on it. */
  leave(): void;
}

/** Streams that call their listener themselves, without a promise for each message. */
export interface ListenableInput<T> extends AsyncIterable<T> {
  listen(listener: InputListener<T>): MessageInput;
}

/** Begins to hear a caller's stream. */
export function listenTo<T>(input: AsyncIterable<T> | ListenableInput<T>, listener: InputListener<T>): MessageInput {
  if ("listen" in input) return input.listen(listener);
  const read = new IteratorInput(input[Symbol.asyncIterator](), listener);
  void read.run();
  return read;
}

class IteratorInput<T> implements MessageInput {
  readonly #iterator: AsyncIterator<T>;
  readonly #listener: InputListener<T>;
  #left = false;
  #resume: (() => void) | undefined;

  constructor(iterator: AsyncIterator<T>, listener: InputListener<T>) {
    this.#iterator = iterator;
    this.#listener = listener;
  }

  resume(): void {
    this.#resume?.();
  }

  leave(): void {
    this.#left = true;
    this.#resume?.();
  }

  /** Never rejects. */
  async run(): Promise<void> {
    try {
      for (;;) {
        const next = await this.#iterator.next();
        if (this.#left) return;
        if (next.done === true) return this.#listener.end();
        const { promise, resolve } = Promise.withResolvers<void>();
        // It may be resumed before `message` has returned.
        this.#resume = resolve;
        if (!this.#listener.message(next.value)) await promise;
        if (this.#left) return;
      }
    } catch (reason) {
      if (!this.#left) this.#listener.fail(reason);
    }
  }
}
