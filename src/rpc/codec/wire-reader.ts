/** A varint of 7 bytes holds 49 bits, which a number holds exactly. */
const LONGEST_VARINT = 7;

/**
 * Reads protobuf's wire format without an object for each value, for the generated fast path. It reads only the usual
 * forms: short varints, ASCII text. For any other form it sets `unusual`. What was read is void then, and the library
 * has to read the message. Nothing throws, and every loop over `more` ends.
 */
export class WireReader {
  readonly #bytes: Buffer;
  #at = 0;
  #end: number;
  /** The message has to be read by the library. */
  unusual = false;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.#end = bytes.length;
  }

  /** Whether the current message has more fields to read. */
  get more(): boolean {
    return this.#at < this.#end && !this.unusual;
  }

  /**
   * The tag of a field with a number below 2048, in as few bytes as it takes. Longer tags are unusual: the library rejects
   * some of them.
   */
  tag(): number {
    const first = this.#at < this.#end ? (this.#bytes[this.#at] ?? 0) : 0x80;
    this.#at += 1;
    if (first < 0x80) return first;
    const second = this.#at < this.#end ? (this.#bytes[this.#at] ?? 0) : 0;
    this.#at += 1;
    if (second === 0 || second >= 0x80) this.unusual = true;
    return (first & 0x7f) | (second << 7);
  }

  /** From 0 to 2³¹ - 1; for enums as well. */
  int32(): number {
    const value = this.#varint();
    if (value > 0x7fff_ffff) this.unusual = true;
    return value;
  }

  uint32(): number {
    const value = this.#varint();
    if (value > 0xffff_ffff) this.unusual = true;
    return value;
  }

  /** From 0 to 2⁴⁹ - 1, signed or unsigned. */
  int64(): bigint {
    return BigInt(this.#varint());
  }

  bool(): boolean {
    return this.#varint() !== 0;
  }

  /** Text in ASCII, with its length before it. */
  text(): string {
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

  /** Enters a message with its length before it. @returns the end of the outer message, for `leave` */
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

  #varint(): number {
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

  /** Skips bytes with their length before them. @returns where they begin */
  #length(): number {
    const length = this.#varint();
    const start = this.#at;
    if (start + length > this.#end) this.unusual = true;
    else this.#at += length;
    return start;
  }
}
