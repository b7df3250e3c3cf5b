/**
 * What a terminal would obey, or show as something else than it is: control characters (the beginning of every escape
 * sequence among them), halves of surrogate pairs, other line ends, and characters that are invisible or turn the
 * direction of what follows. Not the joiners within emoji and words, without which people's names fall apart.
 */
const OBEYED = String.raw`[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]`;
const WITHIN_EMOJI = String.raw`(?<=\p{Extended_Pictographic}|\p{EMod}|\ufe0f)\u200d(?=\p{Extended_Pictographic})`;
const WITHIN_WORDS = String.raw`(?<=\p{L}|\p{M})(?:\u200c|\u200d)(?=\p{L})`;
const UNPRINTABLE = new RegExp(String.raw`${OBEYED}|(?!${WITHIN_EMOJI}|${WITHIN_WORDS})\p{Cf}`, "gu");

/** Any text, as one line that is safe to print: what is not printable is shown as `\u{1b}`. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`);
}

/** JSON text that says the same and is safe to print. It may have several lines. */
export function printableJson(json: string): string {
  return json.replace(UNPRINTABLE, (character) => (character === "\n" ? character : escaped(character)));
}

function escaped(character: string): string {
  // As JSON writes it: by UTF-16 units.
  return Array.from({ length: character.length }, (_, index) => {
    return `\\u${character.charCodeAt(index).toString(16).padStart(4, "0")}`;
  }).join("");
}
