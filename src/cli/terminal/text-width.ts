import stringWidth from "string-width";

const segmenter = new Intl.Segmenter();
// Whatever is all of this takes one column a character: most texts are, and measuring others is slow.
const PLAIN = /^[\x20-\x7e]*$/;

/** Columns that a terminal needs for a text, which may carry colours. */
export function widthOf(text: string): number {
  return PLAIN.test(text) ? text.length : stringWidth(text);
}

/** Whether terminals agree on how wide a text is. Of emoji and of newer characters they have different opinions. */
export function isPlain(text: string): boolean {
  return PLAIN.test(text);
}

export function padEnd(text: string, columns: number): string {
  return text + " ".repeat(Math.max(0, columns - widthOf(text)));
}

export function padStart(text: string, columns: number): string {
  return " ".repeat(Math.max(0, columns - widthOf(text))) + text;
}

/** A text without colours, cut to so many columns; what was cut off is marked by an ellipsis. */
export function clip(text: string, columns: number): string {
  if (widthOf(text) <= columns) return text;
  if (columns < 1) return "";
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
