/** Takes what a listener threw, or what the promise that it returned was rejected with. */
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

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}

/** Lets a fault be seen where nobody takes it, in Node and in browsers, without ending anything. */
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
