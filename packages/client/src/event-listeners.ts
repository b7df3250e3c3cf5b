/** Receives the error that a listener throws, or that its promise rejects with. */
export type OnListenerError = (error: unknown) => void;

/** The listeners of one kind of event. A listener that throws disturbs neither the others nor the caller of `emit`. */
export class Listeners<Event> {
  readonly #listeners = new Set<(event: Event) => void>();
  readonly #onError: OnListenerError;

  constructor(onError: OnListenerError) {
    this.#onError = onError;
  }

  get size(): number {
    return this.#listeners.size;
  }

  /** @returns a function that removes the listener */
  add(listener: (event: Event) => void): () => void {
    // A new function, since the same listener may be added twice.
    const own = (event: Event): void => listener(event);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  emit(event: Event): void {
    for (const listener of [...this.#listeners]) guard(() => listener(event), this.#onError);
  }
}

/**
 * Runs a listener of the host program. Reports what it throws, or what its promise rejects with. If the report itself
 * throws, that becomes a warning. Events come from timers and sockets: an exception that left them would end the process.
 */
function guard(task: () => unknown, onError: OnListenerError): void {
  const report = (error: unknown): void => {
    if (onError === warnOf) warnOf(error);
    else guard(() => onError(error), warnOf);
  };
  try {
    const outcome = task();
    if (isThenable(outcome)) Promise.resolve(outcome).catch(report);
  } catch (error) {
    report(error);
  }
}

/** Reports an error of the library itself to the host program. Never throws. */
export function reportTo(onError: OnListenerError, error: unknown): void {
  guard(() => onError(error), warnOf);
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}

/** Reports an error without a handler, in Node and in browsers, without ending the program. */
export function warnOf(error: unknown): void {
  if (typeof process === "object" && typeof process.emitWarning === "function") {
    process.emitWarning(error instanceof Error ? error : textOf(error));
    return;
  }
  const reportError: unknown = Reflect.get(globalThis, "reportError");
  if (typeof reportError === "function") reportError(error);
}

/** Never throws, though what was thrown may not be convertible to a string. */
function textOf(thrown: unknown): string {
  try {
    return String(thrown);
  } catch {
    return "A listener threw a value that cannot be converted to a string.";
  }
}
