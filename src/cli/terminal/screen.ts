import type { Printer } from "./printer.ts";

// A screen of its own, so that what was on the terminal before is there again afterwards. No cursor while it is drawn, and
// no line goes on in the next one, however wide a terminal takes its characters to be.
const ENTER = "\u001b[?1049h\u001b[?25l\u001b[?7l";
// All at once where the terminal knows how to; others ignore it.
const BEGIN_PICTURE = "\u001b[?2026h\u001b[H";
const END_PICTURE = "\u001b[?2026l";
// Ctrl-C makes the terminal drop what it has not shown yet, maybe the half of a picture.
const LEAVE = `\u001b[0m${END_PICTURE}\u001b[?7h\u001b[?25h\u001b[?1049l`;
const END_OF_LINE = "\u001b[K";
const REST_OF_SCREEN = "\u001b[J";

export interface ScreenSize {
  readonly columns: number;
  readonly rows: number;
}

/** A picture that is drawn again and again in the same place. */
export class Screen {
  readonly #out: Printer;
  #drawn: string | undefined;

  constructor(out: Printer) {
    this.#out = out;
  }

  get size(): ScreenSize {
    return { columns: this.#out.columns ?? 80, rows: this.#out.rows };
  }

  /** Shows these lines and nothing else: at most as many as there are rows, each shorter than the screen. */
  draw(lines: readonly string[]): void {
    const { columns, rows } = this.size;
    // Without a line break after the last line: the screen would scroll.
    const picture = lines.join(`${END_OF_LINE}\r\n`);
    // Of another size it is another picture: terminals move what they show when they are resized.
    const key = `${columns} ${rows} ${picture}`;
    if (key === this.#drawn) return;
    const enter = this.#drawn === undefined ? ENTER : "";
    this.#drawn = key;
    this.#out.put(`${enter}${BEGIN_PICTURE}${picture}${END_OF_LINE}${REST_OF_SCREEN}${END_PICTURE}`);
  }

  /** Leaves the terminal as it was found. */
  close(): void {
    if (this.#drawn !== undefined) this.#out.put(LEAVE);
    this.#drawn = undefined;
  }
}
