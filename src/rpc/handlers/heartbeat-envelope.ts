import type { HeartbeatRequest } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { MAX_BEATS, readFields, readOptionalName } from "../../domain/validation.ts";
import type { SessionOptions } from "./backend.ts";

/**
 * Validates the envelope of a message on a stream. An invalid one ends the stream, since the numbers of later messages
 * cannot be trusted. It checks the rules of `HeartbeatRequest` without the library, and that sequences grow: a stream of
 * ten thousand agents sends a thousand beats per message, and the check is only these comparisons.
 *
 * @param previous the sequence of the message before; 0 before the first
 * @throws Refusal `INVALID_FIELD`
 */
export function checkEnvelope(request: HeartbeatRequest, previous: bigint): void {
  const { sequence, beats } = request;
  // Only the first message describes the claw. The same fields of later messages are ignored.
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
    if (request.takesWakes && request.instanceId === "") {
      violations.add("instance_id", "must be set with takes_wakes");
    }
  });
}

/** The description of the claw in the first message of a stream. Empty fields count as unset. */
export function sessionOptionsOf(request: HeartbeatRequest): SessionOptions {
  const { clawIdentifier, instanceId, generation, takesWakes } = request;
  return { clawIdentifier: clawIdentifier || undefined, instanceId: instanceId || undefined, generation, takesWakes };
}
