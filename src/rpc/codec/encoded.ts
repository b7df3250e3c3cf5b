import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { writeFast } from "./fast-path.ts";

/** The parts of messages that were encoded before a listener sends them. An entry lives as long as its message. */
const partsOf = new WeakMap<object, readonly Uint8Array[]>();

/**
 * Keeps the encoding of a message whose parts are shared with other messages, so that each part is encoded once. The parts are
 * encodings of the message's own type. Concatenated, they are the encoding of all of them merged: protobuf's own rule, which
 * appends repeated fields. Together, the parts must hold every field that is set. The message must not be changed afterwards.
 */
export function keepEncoding(message: object, parts: readonly Uint8Array[]): void {
  partsOf.set(message, parts);
}

/** The message in protobuf's binary form. */
export function encoded<Desc extends DescMessage>(desc: Desc, message: MessageInitShape<Desc>): Buffer {
  const parts = partsOf.get(message);
  if (parts !== undefined) return Buffer.concat(parts);
  const whole = create(desc, message);
  const fast = writeFast(whole);
  if (fast !== undefined) return fast;
  const bytes = toBinary(desc, whole);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * A stand-in for a message with a kept encoding: a library that encodes the stand-in writes the kept bytes. It has no field of
 * the message, only one unknown field, which libraries write unchanged: the first tag, and all bytes after it.
 */
export function asEncoded<Desc extends DescMessage>(
  desc: Desc,
  message: MessageInitShape<Desc>,
): MessageInitShape<Desc> {
  const parts = partsOf.get(message);
  if (parts === undefined) return message;
  const bytes = Buffer.concat(parts);
  if (bytes.length === 0) return message;
  const reader = new BinaryReader(bytes);
  const [no, wireType] = reader.tag();
  const standIn = create(desc);
  standIn.$unknown = [{ no, wireType, data: bytes.subarray(reader.pos) }];
  return standIn;
}
