/** So much is a varint of two bytes, which the length of an agent takes at most. */
const LONGEST_CONTENT = 0x3fff;

/**
 * Writes protobuf's wire format as far as it is usual, into one buffer. What it cannot write it notes: what was written is
 * void then, but nothing throws. Values that are the default of a field without presence are left out.
 */
export class WireWriter {
  readonly #bytes: Buffer;
  #at = 0;
  /** Something was met that is not usual. */
  unusual = false;

  /** `room` has to be enough for all that will be written. */
  constructor(room: number) {
    this.#bytes = Buffer.allocUnsafe(room);
  }

  get written(): Buffer {
    return this.#bytes.subarray(0, this.#at);
  }

  /** A whole number from 0 on, below 2⁵³. */
  number(tag: number, value: number): void {
    if (value === 0) return;
    if (!(value > 0 && value <= Number.MAX_SAFE_INTEGER)) {
      this.unusual = true;
      return;
    }
    this.#byte(tag);
    let rest = value;
    while (rest >= 0x80) {
      this.#byte((rest % 0x80) + 0x80);
      rest = Math.floor(rest / 0x80);
    }
    this.#byte(rest);
  }

  int64(tag: number, value: bigint): void {
    this.number(tag, Number(value));
  }

  /** Text, usual where it is ASCII. */
  text(tag: number, value: string): void {
    if (value === "") return;
    const content = this.begin(tag);
    for (let index = 0; index < value.length; index += 1) {
      const code = value.charCodeAt(index);
      if (code >= 0x80) this.unusual = true;
      this.#byte(code);
    }
    this.end(content);
  }

  /** Begins what has a length. @returns what `end` takes */
  begin(tag: number): number {
    this.#byte(tag);
    // For the length, most of which take one byte.
    this.#byte(0);
    return this.#at;
  }

  end(content: number): void {
    const length = this.#at - content;
    if (length < 0x80) {
      this.#bytes[content - 1] = length;
      return;
    }
    if (length > LONGEST_CONTENT) this.unusual = true;
    this.#bytes.copyWithin(content + 1, content, this.#at);
    this.#at += 1;
    this.#bytes[content - 1] = (length % 0x80) + 0x80;
    this.#bytes[content] = Math.floor(length / 0x80);
  }

  #byte(value: number): void {
    this.#bytes[this.#at] = value;
    this.#at += 1;
  }
}
