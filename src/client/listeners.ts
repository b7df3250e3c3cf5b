/** Takes what a listener threw. */
export type OnListenerError = (error: unknown) => void;

/** Those who listen to one kind of event. One that throws disturbs neither the others nor whoever tells. */
export class Listeners<Event> {
  readonly #listeners = new Set<(event: Event) => void>();
  readonly #onError: OnListenerError;

  constructor(onError: OnListenerError) {
    this.#onError = onError;
  }

  /** @returns what ends it */
  add(listener: (event: Event) => void): () => void {
    // A function of its own: one listener may be given twice.
    const own = (event: Event): void => listener(event);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  tell(event: Event): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(event);
      } catch (error) {
        this.#onError(error);
      }
    }
  }
}

/** Lets a fault be seen where nobody takes it, in Node and in browsers, without ending anything. */
export function warnOf(error: unknown): void {
  if (typeof process === "object" && typeof process.emitWarning === "function") {
    process.emitWarning(error instanceof Error ? error : String(error));
    return;
  }
  const reportError: unknown = Reflect.get(globalThis, "reportError");
  if (typeof reportError === "function") reportError(error);
}
