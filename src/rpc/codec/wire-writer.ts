const EMPTY = Buffer.alloc(0);
/** A tag of two bytes and the longest varint that is written: 53 bits. */
const LONGEST_NUMBER = 2 + 8;

/**
 * Writes protobuf's wire format into one growing buffer, for the generated fast path. It writes only the usual values: numbers
 * from 0 on, ASCII text. For any other value it sets `unusual`. What was written is void then, and the library has to write
 * the message. Nothing throws.
 */
export class WireWriter {
  #bytes = EMPTY;
  #at = 0;
  /** The message has to be written by the library. */
  unusual = false;

  get written(): Buffer {
    return this.#bytes.subarray(0, this.#at);
  }

  /** The tag of a field with a number below 2048. A number, a bool or a text follows. */
  tag(tag: number): void {
    this.reserve(LONGEST_NUMBER);
    this.#varint32(tag);
  }

  /** From 0 to 2³¹ - 1; for enums as well. */
  int32(value: number): void {
    if ((value | 0) !== value || value < 0) this.unusual = true;
    else this.#varint32(value);
  }

  uint32(value: number): void {
    if (value >>> 0 !== value) this.unusual = true;
    else this.#varint32(value);
  }

  /** From 0 to 2⁵³ - 1, signed or unsigned. */
  int64(value: bigint): void {
    let rest = Number(value);
    if (!(rest >= 0 && rest <= Number.MAX_SAFE_INTEGER)) {
      this.unusual = true;
      return;
    }
    while (rest > 0xffff_ffff) {
      this.#byte((rest % 0x80) + 0x80);
      rest = Math.floor(rest / 0x80);
    }
    this.#varint32(rest);
  }

  bool(value: boolean): void {
    this.#byte(value ? 1 : 0);
  }

  /** Text in ASCII. */
  text(value: string): void {
    this.reserve(LONGEST_NUMBER + value.length);
    this.#varint32(value.length);
    for (let index = 0; index < value.length; index += 1) {
      const code = value.charCodeAt(index);
      if (code >= 0x80) this.unusual = true;
      this.#byte(code);
    }
  }

  /** Begins a message in a field with a number below 2048. @returns where its content starts, for `end` */
  begin(tag: number): number {
    this.reserve(LONGEST_NUMBER);
    this.#varint32(tag);
    // The length is not known yet. It mostly takes one byte.
    this.#byte(0);
    return this.#at;
  }

  end(start: number): void {
    const length = this.#at - start;
    if (length < 0x80) {
      this.#bytes[start - 1] = length;
      return;
    }
    let longer = 0;
    for (let rest = length >>> 7; rest > 0; rest >>>= 7) longer += 1;
    this.reserve(longer);
    this.#bytes.copyWithin(start + longer, start, this.#at);
    this.#at = start - 1;
    this.#varint32(length);
    this.#at += length;
  }

  #varint32(value: number): void {
    let rest = value;
    while (rest > 0x7f) {
      this.#byte((rest & 0x7f) | 0x80);
      rest >>>= 7;
    }
    this.#byte(rest);
  }

  #byte(value: number): void {
    this.#bytes[this.#at] = value;
    this.#at += 1;
  }

  /** Makes room for so many bytes. Other methods do so as well, but an estimate at the start saves allocations. */
  reserve(bytes: number): void {
    const needed = this.#at + bytes;
    if (needed > this.#bytes.length) this.#grow(needed);
  }

  #grow(needed: number): void {
    const larger = Buffer.allocUnsafe(Math.max(needed, 2 * this.#bytes.length));
    if (this.#at > 0) this.#bytes.copy(larger, 0, 0, this.#at);
    this.#bytes = larger;
  }
}
