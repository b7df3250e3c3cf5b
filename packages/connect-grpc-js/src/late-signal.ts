/**
 * What aborts, with a signal that is made when somebody asks for it: a signal and the event that aborts it cost more than
 * the rest of a short call, whose handler asks for none.
 */
export class LateSignal {
  #aborted = false;
  #reason: unknown;
  #controller: AbortController | undefined;
  #onAbort: ((reason: unknown) => void) | undefined;

  get aborted(): boolean {
    return this.#aborted;
  }

  /** Undefined until it is aborted. */
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

  /** Does nothing when it was aborted before. */
  abort(reason: unknown): void {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#reason = reason;
    this.#controller?.abort(reason);
    this.#onAbort?.(reason);
  }

  /** Who is told without a signal; the last one who asked. Not called for what was aborted before. */
  onAbort(listener: (reason: unknown) => void): void {
    this.#onAbort = listener;
  }
}
