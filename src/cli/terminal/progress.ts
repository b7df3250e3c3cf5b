import type { Printer } from "./printer.ts";
import { clip } from "./text-width.ts";

const CLEAR_LINE = "\r\u001b[K";
/** No line is shown for work that takes less, in milliseconds. */
const QUIET_MS = 500;
const EVERY_MS = 100;

/** A progress line that is overwritten. It does nothing if standard error is not a terminal. */
export class Progress {
  readonly #err: Printer;
  readonly #startedAt = performance.now();
  #shownAt = Number.NEGATIVE_INFINITY;
  #isShown = false;

  constructor(err: Printer) {
    this.#err = err;
  }

  show(what: string, done: number, of: number): void {
    const now = performance.now();
    if (!this.#err.isScreen || now - this.#startedAt < QUIET_MS || now - this.#shownAt < EVERY_MS) return;
    this.#shownAt = now;
    this.#isShown = true;
    const percent = of === 0 ? 100 : Math.floor((done / of) * 100);
    const line = `${what}: ${done} of ${of} (${percent} %)`;
    // A line that wraps could not be erased.
    const { columns } = this.#err;
    this.#err.put(`${CLEAR_LINE}${columns === undefined ? line : clip(line, Math.max(1, columns - 1))}`);
  }

  /** Erases the line. */
  end(): void {
    if (this.#isShown) this.#err.put(CLEAR_LINE);
    this.#isShown = false;
  }
}
