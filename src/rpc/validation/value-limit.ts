import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import { Refusal } from "../../domain/errors.ts";
import { fromRefusal } from "../errors/error-table.ts";

/**
 * The most values in a message. An empty beat takes two bytes on the wire, and a hundred once it is read. Without this limit, a
 * message of half a million beats would block the event loop for a second before it is rejected as too long. A thousand beats
 * with every field set are 20 000 values.
 */
export const MAX_VALUES = 32_768;

export function tooManyValues(): ConnectError {
  return fromRefusal(
    new Refusal("LIMIT_EXCEEDED", `a message must not hold more than ${MAX_VALUES} values: send fewer items in each`, {
      metadata: { limit: "maxMessageValues", maxMessageValues: String(MAX_VALUES) },
    }),
  );
}

/** The content of a field with its length before it: a message, packed numbers, or (undefined) text and bytes. */
type Content = Fields | "numbers" | undefined;
type Fields = Map<number, Content>;

const compiled = new WeakMap<DescMessage, Fields>();

function fieldsOf(desc: DescMessage): Fields {
  const known = compiled.get(desc);
  if (known !== undefined) return known;
  const fields: Fields = new Map();
  // Before its fields are looked at: a message may contain itself.
  compiled.set(desc, fields);
  for (const field of desc.fields) fields.set(field.number, contentOf(field));
  return fields;
}

function contentOf(field: DescField): Content {
  // On the wire, an entry of a map is a message: 1 is its key, 2 its value.
  if (field.fieldKind === "map")
    return new Map([[2, field.message === undefined ? undefined : fieldsOf(field.message)]]);
  if (field.message !== undefined) return fieldsOf(field.message);
  const isText = field.scalar === ScalarType.STRING || field.scalar === ScalarType.BYTES;
  return field.fieldKind === "list" && !isText ? "numbers" : undefined;
}

/**
 * Whether a message in binary holds too many values. It only skips from tag to tag, also in the messages within. Unknown fields
 * count as well. Bytes that are not a message pass: the reader rejects them.
 */
export function hasTooManyValues(desc: DescMessage, bytes: Uint8Array): boolean {
  // Each takes two bytes at least.
  if (bytes.length <= 2 * MAX_VALUES) return false;
  return new Counter(bytes).tooMany(fieldsOf(desc));
}

/** Deeper than any message of the contract. The reader rejects deeper ones. */
const MAX_DEPTH = 50;

class Counter {
  readonly #bytes: Uint8Array;
  #at = 0;
  #values = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  tooMany(fields: Fields): boolean {
    this.#walk(fields, this.#bytes.length, 0);
    return this.#values > MAX_VALUES;
  }

  #walk(fields: Fields | undefined, end: number, depth: number): void {
    while (this.#at < end && this.#values <= MAX_VALUES) {
      const tag = this.#varint();
      this.#values += 1;
      switch (tag % 8) {
        case 0:
          this.#varint();
          break;
        case 1:
          this.#at += 8;
          break;
        case 2: {
          const length = this.#varint();
          const next = this.#at + length;
          const content = fields?.get(Math.floor(tag / 8));
          if (content === "numbers") this.#values += length > 2 * MAX_VALUES ? length : 0;
          else if (content !== undefined && depth < MAX_DEPTH) this.#walk(content, Math.min(next, end), depth + 1);
          this.#at = next;
          break;
        }
        case 5:
          this.#at += 4;
          break;
        default:
      }
    }
  }

  #varint(): number {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const byte = this.#bytes[this.#at];
      this.#at += 1;
      if (byte === undefined) return value;
      if (shift < 2 ** 35) value += (byte & 0x7f) * shift;
      if (byte < 0x80) return value;
    }
  }
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const OBJECT = 0x7b;
const LIST = 0x5b;

/** The same for JSON as text in UTF-8. It counts the brackets that open and the commas, outside of strings. */
export function hasTooManyJsonValues(bytes: Uint8Array): boolean {
  if (bytes.length <= 2 * MAX_VALUES) return false;
  let values = 0;
  let inString = false;
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at];
    if (inString) {
      if (byte === BACKSLASH) at += 1;
      else if (byte === QUOTE) inString = false;
    } else if (byte === QUOTE) {
      inString = true;
    } else if (byte === COMMA || byte === OBJECT || byte === LIST) {
      values += 1;
      if (values > MAX_VALUES) return true;
    }
  }
  return false;
}
