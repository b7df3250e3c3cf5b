/**
 * A stream of messages without a promise for each, which would be most of the cost of a small message. The consumer takes
 * messages until there is none, and takes again when `onReadable` calls it.
 */
export interface MessageSource<T extends object> {
  /** The next message; undefined if there is none now, or the stream has ended. Throws what ended it, each time. */
  take(): T | undefined;
  /** Whether the stream has ended without an error, and all its messages are taken. */
  readonly done: boolean;
  /** Sets the listener for a new message, the end and a failure. It is never called within `take`. */
  onReadable(listener: () => void): void;
  /** Tells the source that no more messages will be taken, so that it can clean up. May be repeated. */
  close(): void;
}

/** A source as an iterable. A handler returns one; the bridge takes from its source directly. */
export class SourceStream<T extends object> implements AsyncIterableIterator<T> {
  readonly source: MessageSource<T>;
  #waiting: PromiseWithResolvers<IteratorResult<T>> | undefined;
  #listening = false;

  constructor(source: MessageSource<T>) {
    this.source = source;
  }

  next(): Promise<IteratorResult<T>> {
    if (!this.#listening) {
      this.#listening = true;
      this.source.onReadable(() => this.#settle());
    }
    if (this.#waiting !== undefined)
      return Promise.reject(new Error("next() was called before the last promise settled"));
    try {
      const result = this.#result();
      if (result !== undefined) return Promise.resolve(result);
    } catch (thrown) {
      return Promise.reject(thrown);
    }
    this.#waiting = Promise.withResolvers();
    return this.#waiting.promise;
  }

  return(): Promise<IteratorResult<T>> {
    this.source.close();
    this.#waiting?.resolve({ done: true, value: undefined });
    this.#waiting = undefined;
    return Promise.resolve({ done: true, value: undefined });
  }

  throw(thrown: unknown): Promise<IteratorResult<T>> {
    this.source.close();
    this.#waiting?.reject(thrown);
    this.#waiting = undefined;
    return Promise.reject(thrown);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #result(): IteratorResult<T> | undefined {
    const value = this.source.take();
    if (value !== undefined) return { done: false, value };
    return this.source.done ? { done: true, value: undefined } : undefined;
  }

  #settle(): void {
    const waiting = this.#waiting;
    if (waiting === undefined) return;
    try {
      const result = this.#result();
      if (result === undefined) return;
      this.#waiting = undefined;
      waiting.resolve(result);
    } catch (thrown) {
      this.#waiting = undefined;
      waiting.reject(thrown);
    }
  }
}

/** The source of a `SourceStream`; for any other iterable, one that asks for a message when the one before is taken. */
export function sourceOf<T extends object>(stream: AsyncIterable<T>): MessageSource<T> {
  return stream instanceof SourceStream ? stream.source : new IteratorSource(stream[Symbol.asyncIterator]());
}

class IteratorSource<T extends object> implements MessageSource<T> {
  readonly #iterator: AsyncIterator<T>;
  #listener: () => void = () => undefined;
  #asked = false;
  #value: T | undefined;
  #failure: { readonly reason: unknown } | undefined;
  done = false;

  constructor(iterator: AsyncIterator<T>) {
    this.#iterator = iterator;
  }

  take(): T | undefined {
    if (this.#failure !== undefined) throw this.#failure.reason;
    const value = this.#value;
    this.#value = undefined;
    if (value === undefined && !this.done && !this.#asked) this.#ask();
    return value;
  }

  onReadable(listener: () => void): void {
    this.#listener = listener;
  }

  /** Does not wait for the generator: it cleans up when the promise that it awaits settles. */
  close(): void {
    if (this.done) return;
    this.done = true;
    this.#iterator.return?.().then(undefined, () => undefined);
  }

  #ask(): void {
    this.#asked = true;
    this.#iterator.next().then(
      (result) => {
        this.#asked = false;
        if (result.done === true) this.done = true;
        else this.#value = result.value;
        this.#listener();
      },
      (reason: unknown) => {
        this.#asked = false;
        this.#failure = { reason };
        this.#listener();
      },
    );
  }
}
