/**
 * An abort controller that makes its signal when it is first read. A signal and its event cost more than the rest of a short
 * call, whose handler usually reads neither.
 */
export class LazySignal {
  #aborted = false;
  #reason: unknown;
  #controller: AbortController | undefined;
  #onAbort: ((reason: unknown) => void) | undefined;

  get aborted(): boolean {
    return this.#aborted;
  }

  /** Undefined until `abort` was called. */
  get reason(): unknown {
    return this.#reason;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#aborted) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  /** Does nothing after the first time. */
  abort(reason: unknown): void {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#reason = reason;
    this.#controller?.abort(reason);
    this.#onAbort?.(reason);
  }

  /** Sets the only listener, which is called by a later `abort`. It replaces the one before. */
  onAbort(listener: (reason: unknown) => void): void {
    this.#onAbort = listener;
  }
}
