/**
 * What a terminal would obey, or show as something else than it is: control characters (the beginning of every escape
 * sequence among them), halves of surrogate pairs, other line ends, and characters that are invisible or turn the
 * direction of what follows. Not the joiners within emoji and words, without which people's names fall apart.
 */
const OBEYED = String.raw`[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]`;
const WITHIN_EMOJI = String.raw`(?<=\p{Extended_Pictographic}|\p{EMod}|\ufe0f)\u200d(?=\p{Extended_Pictographic})`;
const WITHIN_WORDS = String.raw`(?<=\p{L}|\p{M})(?:\u200c|\u200d)(?=\p{L})`;
const UNPRINTABLE = new RegExp(String.raw`${OBEYED}|(?!${WITHIN_EMOJI}|${WITHIN_WORDS})\p{Cf}`, "gu");

/**
 * What is escaped in a log: names are compared there, letter by letter, so that nothing that is invisible may be part of one, not
 * within emoji and words either. Unicode calls those format characters and default-ignorable code points.
 */
const INVISIBLE = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Cf}\p{Default_Ignorable_Code_Point}]/gu;

/** Any text, as one line that is safe to print: what is not printable is shown as `\u{1b}`. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, shown);
}

/** A text of several lines of our own, each safe to print, whatever else is quoted in it. */
export function printableLines(text: string): string {
  return text.split("\n").map(printable).join("\n");
}

/** Any text, as one line for a log that people read: also what is invisible in all places is shown as `\u{200d}`. */
export function unambiguous(text: string): string {
  return text.replace(INVISIBLE, shown);
}

/** JSON text that says the same and is safe to print. It may have several lines. */
export function printableJson(json: string): string {
  return json.replace(UNPRINTABLE, (character) => (character === "\n" ? character : escaped(character)));
}

/** `printableJson` for a log that programs read: also what is invisible in all places is escaped. */
export function unambiguousJson(json: string): string {
  return json.replace(INVISIBLE, (character) => (character === "\n" ? character : escaped(character)));
}

function shown(character: string): string {
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
}

function escaped(character: string): string {
  // As JSON writes it: by UTF-16 units.
  return Array.from({ length: character.length }, (_, index) => {
    return `\\u${character.charCodeAt(index).toString(16).padStart(4, "0")}`;
  }).join("");
}
