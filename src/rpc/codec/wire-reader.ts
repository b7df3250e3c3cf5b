/** So many bytes of a varint hold 49 bits, which a number can. */
const LONGEST_VARINT = 7;

/**
 * Reads protobuf's wire format as far as it is usual, without an object for a value. What it cannot read it notes, and
 * whoever reads gives up then: until they look, they may get any values, but nothing ends and nothing throws.
 */
export class WireReader {
  readonly #bytes: Buffer;
  #at = 0;
  #end: number;
  /** Something was met that is not usual: what was read since is void. */
  unusual = false;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.#end = bytes.length;
  }

  /** Whether the message goes on. */
  get more(): boolean {
    return this.#at < this.#end && !this.unusual;
  }

  /** The tag of a field with a number below 16. Longer ones, of which the library refuses some, are not usual. */
  tag(): number {
    const tag = this.#at < this.#end ? (this.#bytes[this.#at] ?? 0) : 0x80;
    if (tag >= 0x80) this.unusual = true;
    this.#at += 1;
    return tag;
  }

  /** A varint of up to 49 bits. */
  varint(): number {
    let value = 0;
    let factor = 1;
    for (let length = 0; length < LONGEST_VARINT && this.#at < this.#end; length += 1) {
      const byte = this.#bytes[this.#at] ?? 0;
      this.#at += 1;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
      factor *= 0x80;
    }
    this.unusual = true;
    return 0;
  }

  /** Text in ASCII, with its length before it. */
  ascii(): string {
    const start = this.#length();
    const end = this.#at;
    for (let at = start; at < end; at += 1) {
      if ((this.#bytes[at] ?? 0) >= 0x80) {
        this.unusual = true;
        return "";
      }
    }
    return this.#bytes.toString("latin1", start, end);
  }

  /** Enters a message with its length before it. @returns what `leave` wants back */
  enter(): number {
    const outer = this.#end;
    const start = this.#length();
    this.#end = this.#at;
    this.#at = start;
    return outer;
  }

  leave(outer: number): void {
    this.#end = outer;
  }

  /** Passes over bytes with their length before them. @returns where they began */
  #length(): number {
    const length = this.varint();
    const start = this.#at;
    if (start + length > this.#end) this.unusual = true;
    else this.#at += length;
    return start;
  }
}
