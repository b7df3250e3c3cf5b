import { createRequire } from "node:module";

/** Texts of printable ASCII take one column for each character. */
const PLAIN = /^[\x20-\x7e]*$/;
/** So do letters of Western languages, and the signs that this program prints itself. */
const NARROW = /^[\x20-\x7e\u00a1-\u00a8\u00aa-\u00ac\u00af-\u024f…→█·]*$/;

const require = createRequire(import.meta.url);
let segmenter: Intl.Segmenter | undefined;
let measure: ((text: string) => number) | undefined;

/** The width of a text in columns. It may contain colours. */
export function widthOf(text: string): number {
  return NARROW.test(text) ? text.length : measured(text);
}

/** Loads the library with the first text that needs it: that takes as long as the rest of a command's start. */
function measured(text: string): number {
  if (measure === undefined) {
    const { default: stringWidth }: typeof import("string-width") = require("string-width");
    measure = stringWidth;
  }
  return measure(text);
}

/** Whether all terminals agree on the width of a text. They disagree on emoji and on newer characters. */
export function isPlain(text: string): boolean {
  return PLAIN.test(text);
}

export function padEnd(text: string, columns: number): string {
  return text + " ".repeat(Math.max(0, columns - widthOf(text)));
}

export function padStart(text: string, columns: number): string {
  return " ".repeat(Math.max(0, columns - widthOf(text))) + text;
}

/** Cuts a text without colours to a number of columns. An ellipsis marks the cut. */
export function clip(text: string, columns: number): string {
  if (widthOf(text) <= columns) return text;
  if (columns < 1) return "";
  segmenter ??= new Intl.Segmenter();
  let kept = "";
  let used = 0;
  for (const { segment } of segmenter.segment(text)) {
    const width = widthOf(segment);
    if (used + width > columns - 1) break;
    kept += segment;
    used += width;
  }
  return `${kept}…`;
}
