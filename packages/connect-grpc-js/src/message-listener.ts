/** Gets the messages of a stream, one after the other, and its end. Its methods must not throw. */
export interface MessageListener<T> {
  /** Returns true to get the next message at once, false to get it after `MessageSubscription.resume`. */
  message(message: T): boolean;
  /** The client has half-closed the stream: no more messages follow. */
  end(): void;
  /** The stream broke off. */
  fail(reason: unknown): void;
}

/** What a listener holds of the stream that it gets. */
export interface MessageSubscription {
  /** Asks for the next message, after `message` has returned false. */
  resume(): void;
  /** Stops the listener. The stream stays open: closing it could destroy responses that are still sent on it. */
  unsubscribe(): void;
}

/** A stream that calls a listener, without a promise for each message. */
export interface SubscribableMessages<T> extends AsyncIterable<T> {
  subscribe(listener: MessageListener<T>): MessageSubscription;
}

/** Gives the messages of a stream to a listener. Requests that the bridge made need no promise for each message. */
export function subscribe<T>(
  messages: AsyncIterable<T> | SubscribableMessages<T>,
  listener: MessageListener<T>,
): MessageSubscription {
  if ("subscribe" in messages) return messages.subscribe(listener);
  const reader = new IteratorSubscription(messages[Symbol.asyncIterator](), listener);
  void reader.run();
  return reader;
}

class IteratorSubscription<T> implements MessageSubscription {
  readonly #iterator: AsyncIterator<T>;
  readonly #listener: MessageListener<T>;
  #unsubscribed = false;
  #resume: (() => void) | undefined;

  constructor(iterator: AsyncIterator<T>, listener: MessageListener<T>) {
    this.#iterator = iterator;
    this.#listener = listener;
  }

  resume(): void {
    this.#resume?.();
  }

  unsubscribe(): void {
    this.#unsubscribed = true;
    this.#resume?.();
  }

  /** Never rejects. */
  async run(): Promise<void> {
    try {
      for (;;) {
        const next = await this.#iterator.next();
        if (this.#unsubscribed) return;
        if (next.done === true) return this.#listener.end();
        const { promise, resolve } = Promise.withResolvers<void>();
        // It may be resumed before `message` has returned.
        this.#resume = resolve;
        if (!this.#listener.message(next.value)) await promise;
        if (this.#unsubscribed) return;
      }
    } catch (reason) {
      if (!this.#unsubscribed) this.#listener.fail(reason);
    }
  }
}
