import { create, toBinary } from "@bufbuild/protobuf";
import { HeartbeatRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";

/** The tag of field 1 as a varint: `HeartbeatRequest.sequence`, `HeartbeatResponse.acknowledged_sequence`. */
const FIRST_FIELD = 0x08;

/**
 * The first heartbeat of a stream for these agents, without its sequence. The sequence is prepended to each message, so
 * that the load generator encodes nothing during the measurement.
 */
export function beatsOf(agentIds: readonly string[], claw: string, instance: string): Buffer {
  const message = create(HeartbeatRequestSchema, {
    clawIdentifier: claw,
    instanceId: instance,
    generation: 1n,
    beats: agentIds.map((agentId) => ({ agentId })),
  });
  return Buffer.from(toBinary(HeartbeatRequestSchema, message));
}

/** Later heartbeats, which do not repeat claw and instance. */
export function furtherBeatsOf(agentIds: readonly string[]): Buffer {
  const message = create(HeartbeatRequestSchema, { beats: agentIds.map((agentId) => ({ agentId })) });
  return Buffer.from(toBinary(HeartbeatRequestSchema, message));
}

export function withSequence(sequence: number, beats: Buffer): Buffer {
  const head = Buffer.allocUnsafe(6);
  head[0] = FIRST_FIELD;
  let length = 1;
  let rest = sequence;
  for (; rest > 0x7f; rest >>>= 7) head[length++] = (rest & 0x7f) | 0x80;
  head[length++] = rest;
  return Buffer.concat([head.subarray(0, length), beats]);
}

/** The number in field 1 at the start of a message; 0 for other messages (a hello, a change by others). */
export function readSequence(message: Buffer): number {
  if (message[0] !== FIRST_FIELD) return 0;
  let value = 0;
  for (let place = 1, shift = 0; place < message.length; place += 1, shift += 7) {
    const byte = message[place] ?? 0;
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return value;
}
