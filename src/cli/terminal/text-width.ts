import stringWidth from "string-width";

const segmenter = new Intl.Segmenter();
// Texts of printable ASCII take one column for each character. Measuring other texts is slow.
const PLAIN = /^[\x20-\x7e]*$/;

/** The width of a text in columns. It may contain colours. */
export function widthOf(text: string): number {
  return PLAIN.test(text) ? text.length : stringWidth(text);
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
