/** Characters that a terminal or an editor obeys or hides, each with its name. */
export const HOSTILE_CHARACTERS: readonly (readonly [name: string, character: string])[] = [
  ...[0x00, 0x07, 0x08, 0x0a, 0x0d, 0x1b, 0x7f, 0x85, 0x9b, 0xad],
  ...[0x34f, 0x61c, 0x115f, 0x180e, 0x200b, 0x200c, 0x200d, 0x200e, 0x200f],
  ...[0x2028, 0x2029, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2060, 0x2066, 0x2067, 0x2068, 0x2069],
  ...[0x3164, 0xd800, 0xdfff, 0xfeff, 0xfff9, 0xe0041],
].map((code) => [`U+${code.toString(16).toUpperCase().padStart(4, "0")}`, String.fromCodePoint(code)] as const);

/** Any of these characters, unescaped. A line break may end a line. */
export const RAW = /[^\P{Cc}\n]|[\p{Cs}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/u;
