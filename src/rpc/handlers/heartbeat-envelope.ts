import type { HeartbeatRequest } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { MAX_BEATS, readFields, readOptionalName } from "../../domain/validation.ts";
import type { SessionOptions } from "./backend.ts";

/**
 * Judges the envelope of a message on a stream: with a wrong one the stream ends, since what the client means by its
 * numbers is no longer known. Does by hand what the rules of `HeartbeatRequest` say, and asks for growing numbers: a
 * stream of ten thousand agents brings a thousand beats at a time, at no more cost than these comparisons.
 *
 * @param previous the sequence of the message before; 0 before the first
 * @throws Refusal `INVALID_FIELD`
 */
export function checkEnvelope(request: HeartbeatRequest, previous: bigint): void {
  const { sequence, beats } = request;
  // What is said of the claw counts in the first message only; whatever later ones say of it is not read.
  if (previous > 0n && sequence > previous && beats.length <= MAX_BEATS) return;
  readFields((violations) => {
    if (sequence <= previous) {
      const before = previous === 0n ? "0: a stream counts from 1" : `${previous}, that of the message before`;
      violations.add("sequence", `must be greater than ${before}`);
    }
    if (beats.length > MAX_BEATS) {
      violations.add("beats", `must hold at most ${MAX_BEATS} values: send several messages`);
    }
    if (previous > 0n) return;
    readOptionalName(violations, "claw_identifier", request.clawIdentifier);
    readOptionalName(violations, "instance_id", request.instanceId);
  });
}

/** What the first message of a stream says of the claw behind it. Empty is the same as unset. */
export function sessionOptionsOf({ clawIdentifier, instanceId, generation }: HeartbeatRequest): SessionOptions {
  return { clawIdentifier: clawIdentifier || undefined, instanceId: instanceId || undefined, generation };
}
