import { create } from "@bufbuild/protobuf";
import { statusValue, WAKE_STATE_VALUES } from "../../../common/contract/enum-values.ts";
import { durationOf } from "../../../common/contract/timestamps.ts";
import { WakeState } from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  type AgentBeatError,
  AgentBeatErrorSchema,
  type AgentBeatResult,
  AgentBeatResultSchema,
  type WakeReplyResult,
  WakeReplyResultSchema,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import type { Refusal } from "../../domain/errors.ts";
import type { BeatResult } from "../../domain/message-to-claw.ts";
import type { WakeReplyResult as WakeReplyResultValue } from "../../domain/wake.ts";
import { codeOf, errorReasonOf, shorten } from "../errors/error-table.ts";
import { exhaustionMessage } from "./agent.ts";

export function beatResultMessage(result: Omit<BeatResult, "kind">): AgentBeatResult {
  return create(AgentBeatResultSchema, {
    agentId: result.agentId,
    status: statusValue(result.status),
    exhaustion: exhaustionMessage(result.exhaustion),
    error: result.refusal === null ? undefined : beatErrorMessage(result.refusal),
    sequence: result.sequence,
    beatIndex: result.beatIndex,
    revision: result.revision ?? 0n,
    wakeResults: result.wakeResults?.map(wakeResultMessage) ?? [],
  });
}

function wakeResultMessage({ wakeId, state, refusal }: WakeReplyResultValue): WakeReplyResult {
  return create(WakeReplyResultSchema, {
    wakeId,
    state: state === null ? WakeState.UNSPECIFIED : WAKE_STATE_VALUES[state],
    error: refusal === null ? undefined : beatErrorMessage(refusal),
  });
}

/** The same code and reason that the refusal would have as the error of a call. */
function beatErrorMessage(refusal: Refusal): AgentBeatError {
  return create(AgentBeatErrorSchema, {
    code: codeOf(refusal.reason),
    reason: errorReasonOf(refusal.reason),
    message: shorten(refusal.message),
    retryAfter: refusal.retryAfterMs === undefined ? undefined : durationOf(refusal.retryAfterMs),
  });
}
