import { create, type DescMessage, isMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { HeartbeatResponseSchema } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { writeMessageOfAgents } from "./agent-messages.ts";
import { writeUsualAcknowledgement } from "./heartbeat-response.ts";

/** The parts of messages that were encoded before a listener asked for them. Gone with the messages. */
const partsOf = new WeakMap<object, readonly Uint8Array[]>();

/**
 * Keeps what a message consists of on the wire, where parts of it are in other messages, too, and need not be encoded for
 * each. Encodings of one type, one behind the other, are the encoding of them all merged: protobuf's own rule, which
 * appends repeated fields. The message must not be changed afterwards.
 */
export function keepEncoding(message: object, parts: readonly Uint8Array[]): void {
  partsOf.set(message, parts);
}

/** The message in protobuf's binary form. */
export function encoded<Desc extends DescMessage>(desc: Desc, message: MessageInitShape<Desc>): Buffer {
  const parts = partsOf.get(message);
  if (parts !== undefined) return Buffer.concat(parts);
  if (isMessage(message, HeartbeatResponseSchema)) {
    const usual = writeUsualAcknowledgement(message);
    if (usual !== undefined) return usual;
  }
  const whole = create(desc, message);
  const agents = writeMessageOfAgents(desc, whole);
  if (agents !== undefined) return agents;
  const bytes = toBinary(desc, whole);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * What becomes the same bytes when somebody else encodes it: for that alone, it has none of the message's fields. Fields
 * that an encoder does not know it writes as they came, so the first tag and all that follows make one of them.
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
