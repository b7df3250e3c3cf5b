import { type LooseValue, readLooseJson } from "./loose-json.ts";

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
/** Before an error that is a text: the SDKs of OpenAI and Anthropic print the body as JSON after the status, logs after `error:`, gRPC for Python after `details = `. */
const ERROR_BEFORE = /(?:(?:^|[\s:])[45]\d\d[\s:-]{1,3}|\b(?:error|error_message)[:=] ?|\bdetails = )$/i;
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
/** Of one message. Where more objects, lists or quotations seem to begin, the rest counts as words. */
const MOST_TRIES = 1_000;
/** Of these, objects and lists in escapes: each costs a copy of the rest. */
const MOST_ESCAPED = 4;

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
  let escaped = 0;
  const readContainer = (at: number): Container | undefined => {
    const plain = readPlain(text, at, deepest);
    if (plain !== undefined || escaped >= MOST_ESCAPED || !ESCAPED.test(text.slice(at, at + 16))) return plain;
    escaped += 1;
    return readEscaped(text, at, deepest);
  };
  for (let tries = 0; tries < MOST_TRIES; tries += 1) {
    SPECIAL.lastIndex = from;
    const at = SPECIAL.exec(text)?.index;
    if (at === undefined) break;
    const before = text.slice(Math.max(0, at - BEFORE), at);
    const character = text.charAt(at);
    if (character === "{" || character === "[") {
      const read = readContainer(at);
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
      const read = readContainer(at + 1);
      if (read !== undefined) {
        values.push(read.value);
        take(at, read.end + 1);
        continue;
      }
    }
    const end = endOfQuotation(text, at);
    if (ERROR_BEFORE.test(before)) values.push(text.slice(at + 1, end - 1));
    take(at, end);
  }
  words.push(text.slice(done));
  return { words: words.join(""), values };
}

interface Container {
  readonly value: object;
  readonly end: number;
}

const ESCAPED = /^[{[\s]{0,8}\\+["'nrt]/;

/** An object that tells something, or a list with an object in it. */
function readPlain(text: string, at: number, deepest: number): Container | undefined {
  const read = readLooseJson(text, at, deepest);
  return read !== undefined && isEvidence(read) ? read : undefined;
}

/** The same in a string within a string, with one level of escapes more. Where it ends in the escaped text is unknown. */
function readEscaped(text: string, at: number, deepest: number): Container | undefined {
  const read = readPlain(withoutEscapes(text.slice(at)), 0, deepest);
  return read === undefined ? undefined : { value: read.value, end: text.length };
}

function isEvidence({ value, quoted }: LooseValue): boolean {
  if (Array.isArray(value)) {
    return value.some((item) => typeof item === "object" && item !== null && !Array.isArray(item));
  }
  // `retry_delay { seconds: 41 }` is left to the phrases.
  return (
    quoted || Object.values(value).some((one) => typeof one === "string" || (typeof one === "object" && one !== null))
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
