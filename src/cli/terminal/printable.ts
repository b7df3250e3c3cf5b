/**
 * Characters that a terminal would execute or show misleadingly: control characters (with which each escape sequence
 * begins), unpaired surrogates, other line ends, and invisible or direction-changing characters. Joiners within emoji
 * and words are allowed, because names of people need them.
 */
const CONTROL = String.raw`[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]`;
const WITHIN_EMOJI = String.raw`(?<=\p{Extended_Pictographic}|\p{EMod}|\ufe0f)\u200d(?=\p{Extended_Pictographic})`;
const WITHIN_WORDS = String.raw`(?<=\p{L}|\p{M})(?:\u200c|\u200d)(?=\p{L})`;
const UNPRINTABLE = new RegExp(String.raw`${CONTROL}|(?!${WITHIN_EMOJI}|${WITHIN_WORDS})\p{Cf}`, "gu");

/**
 * Characters that are escaped in a log. Names are compared there letter by letter, so invisible characters are escaped
 * everywhere, also within emoji and words. Unicode calls them format characters and default-ignorable code points.
 */
const INVISIBLE = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Cf}\p{Default_Ignorable_Code_Point}]/gu;

/** Any text as one line that is safe to print. Unprintable characters become `\u{1b}`. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, shown);
}

/** A text of several lines of this program, each safe to print. */
export function printableLines(text: string): string {
  return text.split("\n").map(printable).join("\n");
}

/** Any text as one line for a log that people read. Characters that are invisible anywhere also become `\u{200d}`. */
export function unambiguous(text: string): string {
  return text.replace(INVISIBLE, shown);
}

/** Equivalent JSON text that is safe to print. It may have several lines. */
export function printableJson(json: string): string {
  return json.replace(UNPRINTABLE, (character) => (character === "\n" ? character : escaped(character)));
}

/** `printableJson` for a log that programs read. Characters that are invisible anywhere are escaped as well. */
export function unambiguousJson(json: string): string {
  return json.replace(INVISIBLE, (character) => (character === "\n" ? character : escaped(character)));
}

function shown(character: string): string {
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
}

function escaped(character: string): string {
  // JSON escapes UTF-16 units.
  return Array.from({ length: character.length }, (_, index) => {
    return `\\u${character.charCodeAt(index).toString(16).padStart(4, "0")}`;
  }).join("");
}
