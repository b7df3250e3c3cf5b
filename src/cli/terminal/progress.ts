import type { Printer } from "./printer.ts";
import { clip } from "./text-width.ts";

const CLEAR_LINE = "\r\u001b[K";
/** Work that is over before this is not worth a line. */
const QUIET_MS = 500;
const EVERY_MS = 100;

/** How far something has come, in one line that is written over and over; nothing where standard error is no terminal. */
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
    // One that went on in the next line could not be taken away.
    const { columns } = this.#err;
    this.#err.put(`${CLEAR_LINE}${columns === undefined ? line : clip(line, Math.max(1, columns - 1))}`);
  }

  /** Takes the line away. */
  end(): void {
    if (this.#isShown) this.#err.put(CLEAR_LINE);
    this.#isShown = false;
  }
}
