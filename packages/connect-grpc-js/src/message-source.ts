/**
 * A stream of messages that are taken when there are some: without a promise for each, which is what most of a heartbeat
 * would cost. Whoever takes them asks until there is none, and asks again when it hears of news.
 */
export interface MessageSource<T extends object> {
  /** The next message; undefined where there is none now, or none any more. Throws what ended the stream, each time. */
  take(): T | undefined;
  /** Whether the stream has ended well, and all that was in it is taken. */
  readonly over: boolean;
  /** `onNews` is called when there may be something to take, or the stream is over, or failed; never within `take`. */
  listen(onNews: () => void): void;
  /** Nobody takes any more: what stands behind it may clean up. May be repeated. */
  leave(): void;
}

/** The same as an iterable, for those who know nothing of sources. */
export class SourceStream<T extends object> implements AsyncIterableIterator<T> {
  readonly source: MessageSource<T>;
  #waiting: PromiseWithResolvers<IteratorResult<T>> | undefined;
  #listens = false;

  constructor(source: MessageSource<T>) {
    this.source = source;
  }

  next(): Promise<IteratorResult<T>> {
    if (!this.#listens) {
      this.#listens = true;
      this.source.listen(() => this.#onNews());
    }
    if (this.#waiting !== undefined) return Promise.reject(new Error("a stream of messages has one reader"));
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
    this.source.leave();
    this.#waiting?.resolve({ done: true, value: undefined });
    this.#waiting = undefined;
    return Promise.resolve({ done: true, value: undefined });
  }

  throw(thrown: unknown): Promise<IteratorResult<T>> {
    this.source.leave();
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
    return this.source.over ? { done: true, value: undefined } : undefined;
  }

  #onNews(): void {
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

/** Takes from an iterable: by itself where it is a source, else one message at a time, none before it is wanted. */
export function sourceOf<T extends object>(stream: AsyncIterable<T>): MessageSource<T> {
  return stream instanceof SourceStream ? stream.source : new IteratorSource(stream[Symbol.asyncIterator]());
}

class IteratorSource<T extends object> implements MessageSource<T> {
  readonly #iterator: AsyncIterator<T>;
  #onNews: () => void = () => undefined;
  #asked = false;
  #value: T | undefined;
  #failure: { readonly reason: unknown } | undefined;
  over = false;

  constructor(iterator: AsyncIterator<T>) {
    this.#iterator = iterator;
  }

  take(): T | undefined {
    if (this.#failure !== undefined) throw this.#failure.reason;
    const value = this.#value;
    this.#value = undefined;
    if (value === undefined && !this.over && !this.#asked) this.#ask();
    return value;
  }

  listen(onNews: () => void): void {
    this.#onNews = onNews;
  }

  /** A generator cleans up when what it waits for settles; nobody waits for it here. */
  leave(): void {
    if (this.over) return;
    this.over = true;
    this.#iterator.return?.().then(undefined, () => undefined);
  }

  #ask(): void {
    this.#asked = true;
    this.#iterator.next().then(
      (result) => {
        this.#asked = false;
        if (result.done === true) this.over = true;
        else this.#value = result.value;
        this.#onNews();
      },
      (reason: unknown) => {
        this.#asked = false;
        this.#failure = { reason };
        this.#onNews();
      },
    );
  }
}
