import type { AgentBeat, HeartbeatRequest } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { LONGEST_LIST, readFields, readOptionalName, type Violations } from "../../domain/validation.ts";
import type { SessionOptions } from "../backend.ts";

/** The greatest number of beats in a message, on a stream or not. */
export const MAX_BEATS = LONGEST_LIST;

/** The number of beats is of the envelope: above it nothing of the message is judged. */
export function checkBeatCount(violations: Violations, beats: readonly AgentBeat[]): void {
  if (beats.length > MAX_BEATS) violations.add("beats", `must hold at most ${MAX_BEATS} beats: send several messages`);
}

/**
 * Judges the envelope of a message on a stream: with a wrong one the stream ends, since what the client means by its
 * numbers is no longer known.
 *
 * @param previous the sequence of the message before; 0 before the first
 * @throws Refusal `INVALID_FIELD`
 */
export function checkEnvelope(request: HeartbeatRequest, previous: bigint): void {
  readFields((violations) => {
    if (request.sequence <= previous) {
      const before = previous === 0n ? "0: a stream counts from 1" : `${previous}, that of the message before`;
      violations.add("sequence", `must be greater than ${before}`);
    }
    checkBeatCount(violations, request.beats);
  });
}

/**
 * Reads what the first message of a stream says of the claw behind it.
 *
 * @throws Refusal `INVALID_FIELD`
 */
export function readSessionOptions(first: HeartbeatRequest): SessionOptions {
  return readFields((violations) => ({
    clawIdentifier: readOptionalName(violations, "claw_identifier", first.clawIdentifier),
    instanceId: readOptionalName(violations, "instance_id", first.instanceId),
    generation: first.generation,
  }));
}
