import { create } from "@bufbuild/protobuf";
import { timestampOf, timestampOrUnset } from "../../../common/contract/timestamps.ts";
import { type Pause as PauseMessage, PauseSchema } from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import type { Pause } from "../../domain/wake.ts";

export function pauseMessage({ target, since, until, note, actor }: Pause): PauseMessage {
  return create(PauseSchema, {
    target:
      "agentId" in target
        ? { case: "agentId", value: target.agentId }
        : { case: "clawIdentifier", value: target.clawIdentifier },
    since: timestampOf(since),
    until: timestampOrUnset(until),
    note,
    actor,
  });
}
