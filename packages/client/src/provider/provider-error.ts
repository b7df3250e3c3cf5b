import {
  HEADER_FIELDS,
  HEADER_PREFIXES,
  INNER_FIELDS,
  MESSAGE_FIELDS,
  NAME_FIELDS,
  NAME_HEADERS,
  STATUS_FIELDS,
} from "./error-fields.ts";
import { readText } from "./error-texts.ts";
import { readLooseJson } from "./loose-json.ts";
import { attempt, headerOf, itemsOf, keysOf, read } from "./safe-reads.ts";
import { statedIn } from "./stated-statuses.ts";
import { WAIT_FIELDS } from "./wait-sources.ts";

/** The error of a call to a model provider, independent of the library. */
export interface ProviderFailure {
  /** HTTP statuses of the response and of the errors around it. Errors within a stream have none. */
  readonly statuses: ReadonlySet<number>;
  /** HTTP statuses that messages name. */
  readonly statedStatuses: ReadonlySet<number>;
  /** Names of the error in response and library, in lower case: `rate_limit_error`, and with the field `type=rate_limit_error`. */
  readonly names: ReadonlySet<string>;
  /** All messages without their quotations, in lower case, each on one line: terminals break them. */
  readonly text: string;
  /** Values of a field of `WAIT_FIELDS`, the outermost first. */
  field(name: string): readonly (string | number)[];
  /** A header of the response; undefined if it is missing or too long. */
  header(name: string): string | undefined;
}

/** The depth of nested errors and of JSON within JSON that is read. It also ends cycles. */
const DEEPEST = 24;
const MOST_PARTS = 120;
/** Of a name of an error, and of a value that tells a wait. */
const LONGEST_NAME = 128;
/** Of one text. A longer one counts as far as this. */
const LONGEST_TEXT = 65_536;
/** Of all texts together. */
const LONGEST_TEXTS = 4 * LONGEST_TEXT;
/** Of the messages, in which the phrases are searched. */
const LONGEST_WORDS = 32_768;

const bareName = (key: string): string => key.replace(/[_-]/g, "").toLowerCase();
const FIELDS: ReadonlySet<string> = new Set(WAIT_FIELDS.map(({ name }) => bareName(name)));

/** Reads any thrown value. Never throws, also if a getter or proxy does. */
export function readFailure(thrown: unknown): ProviderFailure {
  const { parts, sentences } = partsOf(thrown);
  const names = new Set<string>();
  const statuses = new Set<number>();
  const fields = new Map<string, (string | number)[]>();
  const headers: unknown[] = [];
  for (const part of parts) {
    for (const key of STATUS_FIELDS) {
      const status = statusOf(read(part, key));
      if (status !== undefined) statuses.add(status);
    }
    for (const key of NAME_FIELDS) addName(names, key, read(part, key));
    for (const key of HEADER_FIELDS) headers.push(read(part, key));
    for (const key of keysOf(part)) {
      const name = bareName(key);
      if (!FIELDS.has(name)) continue;
      const value = waitValueOf(read(part, key));
      if (value === undefined) continue;
      const values = fields.get(name);
      if (values === undefined) fields.set(name, [value]);
      else values.push(value);
    }
  }
  const header = (name: string): string | undefined => {
    for (const prefix of ["", ...HEADER_PREFIXES]) {
      for (const all of headers) {
        const value = headerOf(all, `${prefix}${name}`);
        if (value !== undefined && value !== "") return value;
      }
    }
    return undefined;
  };
  for (const name of NAME_HEADERS) addName(names, name, header(name)?.split(":", 1)[0]);
  return {
    statuses,
    statedStatuses: statedIn(sentences),
    names,
    text: sentences.map(onOneLine).join("\n").slice(0, LONGEST_WORDS).toLowerCase(),
    field: (name) => fields.get(bareName(name)) ?? [],
    header,
  };
}

function addName(names: Set<string>, key: string, value: unknown): void {
  if (typeof value === "number") names.add(`${key}=${value}`);
  if (typeof value !== "string" || value.length > LONGEST_NAME) return;
  // Types may begin with a namespace: `com.amazon.coral.service#ThrottlingException`, `type.googleapis.com/google.rpc.RetryInfo`.
  const name = (
    key === "@type" ? value.slice(value.lastIndexOf(".") + 1) : value.slice(value.indexOf("#") + 1)
  ).toLowerCase();
  names.add(name);
  names.add(`${key.toLowerCase()}=${name}`);
}

/** The error and its parts, the outermost first, and the messages of all. Texts are searched for JSON. */
function partsOf(thrown: unknown): { readonly parts: readonly object[]; readonly sentences: readonly string[] } {
  const parts: object[] = [];
  const sentences: string[] = [];
  const seen = new Set<object>();
  const seenTexts = new Set<string>();
  let left = LONGEST_TEXTS;
  let level: unknown[] = [thrown];
  for (let depth = 0; depth < DEEPEST && level.length > 0; depth += 1) {
    const next: unknown[] = [];
    for (const one of level) {
      if (parts.length >= MOST_PARTS) break;
      if (typeof one === "string") {
        const text = one.slice(0, Math.min(LONGEST_TEXT, left));
        // A library repeats the message of the error within.
        if (text === "" || seenTexts.has(text)) continue;
        seenTexts.add(text);
        left -= text.length;
        const { words, values } = readMessage(text);
        if (words !== "") sentences.push(words);
        next.push(...values.slice(0, MOST_PARTS));
      } else if (typeof one === "object" && one !== null && !seen.has(one)) {
        seen.add(one);
        const items = itemsOf(one);
        if (items !== undefined) {
          next.push(...items);
          continue;
        }
        parts.push(one);
        for (const key of MESSAGE_FIELDS) next.push(textOf(read(one, key)));
        for (const key of INNER_FIELDS) next.push(read(one, key));
        // The AI SDK also lists the errors of earlier attempts: the last one says how it is now.
        if (read(one, "lastError") === undefined) next.push(read(one, "errors"));
      }
    }
    level = next;
  }
  return { parts, sentences };
}

/** A text: JSON as a whole, or a message. */
function readMessage(text: string): { readonly words: string; readonly values: readonly unknown[] } {
  const trimmed = text.trim();
  if (trimmed.startsWith('"') && trimmed.endsWith('"')) {
    const value = attempt((): unknown => JSON.parse(trimmed));
    if (typeof value === "string") return { words: "", values: [value] };
  }
  if (/^[{[]/.test(trimmed)) {
    const whole = readLooseJson(trimmed, 0, DEEPEST);
    if (whole !== undefined && whole.end >= trimmed.length) return { words: "", values: [whole.value] };
  }
  const { words, values } = readText(text, DEEPEST);
  return { words: words.trim(), values };
}

/** A number, a text, or a google.protobuf.Duration as gRPC's libraries have it. */
function waitValueOf(value: unknown): string | number | undefined {
  if (typeof value === "number") return value;
  if (typeof value === "string") return value.length <= LONGEST_NAME ? value : undefined;
  if (typeof value !== "object" || value === null) return undefined;
  const seconds = numberOf(read(value, "seconds")) + numberOf(read(value, "nanos")) / 1e9;
  return seconds > 0 ? `${seconds.toFixed(3)}s` : undefined;
}

function numberOf(value: unknown): number {
  return typeof value === "number" || typeof value === "string" ? Number(value) : 0;
}

function onOneLine(message: string): string {
  return message.split(/\s+/).join(" ");
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function statusOf(value: unknown): number | undefined {
  const status = typeof value === "string" && /^\d{3}$/.test(value) ? Number(value) : value;
  return typeof status === "number" && Number.isInteger(status) && status >= 100 && status < 600 ? status : undefined;
}
