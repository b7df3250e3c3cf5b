import { readLooseJson } from "./loose-json.ts";

/** A message, taken apart. */
export interface TextParts {
  /** The message without its objects and its quotations: these may be texts of the user. */
  readonly words: string;
  /** Objects, lists and bodies in the message, as far as they are the provider's. */
  readonly values: readonly (object | string)[];
}

/** Words before a text of the user: what stands right after them is no evidence. */
const ECHOES = /(?:\b(?:got|received|content|prompt|input|input_value|value|argument)['"\])]{0,3}[\s:=]{0,3})$/i;
/** Words before a quotation that is the provider's error: `body: '{…}'`. Python prints bytes as `b'{…}'`. */
const BODIES = /(?:^|- {0,2}|\b(?:b|error|errors|exception|response|body|data|message|details|payload)[\s:=-]{0,4})$/i;
/** Before a body that is a text: the SDKs of OpenAI and Anthropic print it as JSON after the status. */
const STATUS_BEFORE = /(?:^|[\s:])[45]\d\d[\s:-]{1,3}$/;
const QUOTES: Readonly<Record<string, string>> = {
  '"': '"',
  "'": "'",
  "`": "`",
  "“": "”",
  "‘": "’",
  "«": "»",
  "„": "“",
};
const SPECIAL = /[{["'`“‘«„]/g;
/** How much before a place says what stands there. */
const BEFORE = 24;

/** Takes a message apart: words, quotations, and JSON as text. It reads each character a bounded number of times. */
export function readText(text: string, deepest: number): TextParts {
  const words: string[] = [];
  const values: (object | string)[] = [];
  let done = 0;
  /** Special characters before this place are plain ones. */
  let from = 0;
  const take = (end: number, next: number): void => {
    words.push(text.slice(done, end), " ");
    done = next;
    from = next;
  };
  for (;;) {
    SPECIAL.lastIndex = from;
    const at = SPECIAL.exec(text)?.index;
    if (at === undefined) break;
    const before = text.slice(Math.max(0, at - BEFORE), at);
    const character = text.charAt(at);
    if (character === "{" || character === "[") {
      const read = readContainer(text, at, deepest);
      if (read === undefined) {
        from = at + 1;
        continue;
      }
      if (!ECHOES.test(before)) values.push(read.value);
      take(at, read.end);
      continue;
    }
    if (!opensQuotation(text, at, before)) {
      from = at + 1;
      continue;
    }
    if (BODIES.test(before) && !ECHOES.test(before) && /^[{[]/.test(text.charAt(at + 1))) {
      const read = readContainer(text, at + 1, deepest);
      if (read !== undefined) {
        values.push(read.value);
        take(at, read.end + 1);
        continue;
      }
    }
    const end = endOfQuotation(text, at);
    if (STATUS_BEFORE.test(before)) values.push(text.slice(at + 1, end - 1));
    take(at, end);
  }
  words.push(text.slice(done));
  return { words: words.join(""), values };
}

/** An object, or a list with an object in it. Its quotes may be escaped, as in a string within a string. */
function readContainer(text: string, at: number, deepest: number): { value: object; end: number } | undefined {
  const read = readLooseJson(text, at, deepest);
  if (read !== undefined) return isEvidence(read.value) ? { value: read.value, end: read.end } : undefined;
  const escaped = /^[{[\s]{0,8}\\+["'nrt]/.exec(text.slice(at, at + 16));
  if (escaped === null) return undefined;
  const unescaped = readLooseJson(withoutEscapes(text.slice(at)), 0, deepest);
  // Where it ends in the escaped text is unknown.
  return unescaped !== undefined && isEvidence(unescaped.value)
    ? { value: unescaped.value, end: text.length }
    : undefined;
}

function isEvidence(value: object): boolean {
  return (
    !Array.isArray(value) || value.some((item) => typeof item === "object" && item !== null && !Array.isArray(item))
  );
}

/** One level of escapes less. */
function withoutEscapes(text: string): string {
  return text.replace(/\\([\\"'/nrt])/g, (_, escaped: string) => (/[nrt]/.test(escaped) ? " " : escaped));
}

/** A quote between letters is an apostrophe. */
function opensQuotation(text: string, at: number, before: string): boolean {
  const opening = text.charAt(at);
  if (!(opening in QUOTES)) return false;
  if (/[“‘«„]/.test(opening)) return true;
  return (before === "" || /[\s([{:=,>|/-]$|\bb$/.test(before)) && /\S/.test(text.charAt(at + 1));
}

/** After the closing quote, or at the end of a text that is cut off. */
function endOfQuotation(text: string, at: number): number {
  const closing = QUOTES[text.charAt(at)] ?? "";
  for (let end = text.indexOf(closing, at + 1); end >= 0; end = text.indexOf(closing, end + 1)) {
    // Within a quotation in single quotes, too, a quote before a letter is an apostrophe.
    if (text.charAt(end - 1) !== "\\" && !/[\p{L}\p{N}]/u.test(text.charAt(end + 1))) return end + 1;
  }
  return text.length;
}
