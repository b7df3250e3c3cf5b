import type { Printer } from "./printer.ts";

// Use the alternate screen, so that the former content of the terminal returns afterwards. Hide the cursor, and switch
// off line wrapping, because terminals disagree on character widths.
const ENTER = "\u001b[?1049h\u001b[?25l\u001b[?7l";
// Synchronised update: terminals that do not support it ignore it.
const BEGIN_PICTURE = "\u001b[?2026h\u001b[H";
const END_PICTURE = "\u001b[?2026l";
// Reset everything: on Ctrl-C the terminal may drop the rest of a half-drawn picture.
const LEAVE = `\u001b[0m${END_PICTURE}\u001b[?7h\u001b[?25h\u001b[?1049l`;
const END_OF_LINE = "\u001b[K";
const REST_OF_SCREEN = "\u001b[J";

export interface ScreenSize {
  readonly columns: number;
  readonly rows: number;
}

/** A picture that is redrawn in the same place. */
export class Screen {
  readonly #out: Printer;
  #drawn: string | undefined;

  constructor(out: Printer) {
    this.#out = out;
  }

  get size(): ScreenSize {
    return { columns: this.#out.columns ?? 80, rows: this.#out.rows };
  }

  /** Shows exactly these lines: at most as many as the screen has rows, each shorter than its width. */
  draw(lines: readonly string[]): void {
    const { columns, rows } = this.size;
    // No line break after the last line: the screen would scroll.
    const picture = lines.join(`${END_OF_LINE}\r\n`);
    // Redraw after a resize, because terminals move their content.
    const key = `${columns} ${rows} ${picture}`;
    if (key === this.#drawn) return;
    const enter = this.#drawn === undefined ? ENTER : "";
    this.#drawn = key;
    this.#out.put(`${enter}${BEGIN_PICTURE}${picture}${END_OF_LINE}${REST_OF_SCREEN}${END_PICTURE}`);
  }

  /** Restores the terminal. */
  close(): void {
    if (this.#drawn !== undefined) this.#out.put(LEAVE);
    this.#drawn = undefined;
  }
}
