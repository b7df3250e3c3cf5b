import { create } from "@bufbuild/protobuf";
import { STATUS_VALUES, WAKE_REASON_VALUES, WAKE_STATE_VALUES } from "../../../common/contract/enum-values.ts";
import { durationOf, timestampOf } from "../../../common/contract/timestamps.ts";
import { WakeReason, type WakeUpdate, WakeUpdateSchema } from "../../../gen/harborforge/agents/v1/wake_pb.ts";
import type { WakeNotice } from "../../domain/message-to-claw.ts";

/** The state of a wake for the claw whose stream holds its agent. */
export function wakeUpdateMessage(notice: WakeNotice): WakeUpdate {
  return create(WakeUpdateSchema, {
    agentId: notice.agentId,
    wakeId: notice.wakeId,
    offerRevision: notice.offerRevision,
    state: WAKE_STATE_VALUES[notice.state],
    claim: STATUS_VALUES[notice.claim],
    answerWithin: notice.answerWithinMs === null ? undefined : durationOf(notice.answerWithinMs),
    payload: notice.payload ?? new Uint8Array(0),
    cancelRequested: notice.isCancelRequested,
    expiresAt: timestampOf(notice.expiresAt),
    reason: notice.reason === null ? WakeReason.UNSPECIFIED : WAKE_REASON_VALUES[notice.reason],
  });
}
