import { type DescMessage, isMessage, type Message, type MessageShape } from "@bufbuild/protobuf";
import { readMessage, writeMessage } from "./generated/fast-path.ts";
import { WireReader } from "./wire-reader.ts";
import { WireWriter } from "./wire-writer.ts";

/**
 * Reads a message by the generated fast path, with the same result as the library. Undefined for a type without a fast path,
 * and for bytes that only the library reads or rejects, such as names beyond ASCII and unknown fields.
 */
export function readFast<Desc extends DescMessage>(desc: Desc, bytes: Buffer): MessageShape<Desc> | undefined {
  const reader = new WireReader(bytes);
  const message = readMessage(desc.typeName, reader);
  return !reader.unusual && isMessage(message, desc) ? message : undefined;
}

/**
 * Writes a message by the generated fast path, to the same bytes as the library. Undefined for a type without a fast path,
 * and for a message that only the library writes.
 */
export function writeFast(message: Message): Buffer | undefined {
  const writer = new WireWriter();
  return writeMessage(writer, message) && !writer.unusual ? writer.written : undefined;
}
