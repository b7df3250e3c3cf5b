import { create } from "@bufbuild/protobuf";
import {
  IF_UNAVAILABLE_VALUES,
  STATUS_VALUES,
  WAKE_OUTCOME_VALUES,
  WAKE_REASON_VALUES,
  WAKE_STATE_VALUES,
} from "../../../common/contract/enum-values.ts";
import { durationOf, timestampOf, timestampOrUnset } from "../../../common/contract/timestamps.ts";
import {
  type Wake as WakeMessage,
  WakeOutcome,
  WakeReason,
  WakeSchema,
  type WakeUpdate,
  WakeUpdateSchema,
} from "../../../gen/harborforge/agents/v1/wake_pb.ts";
import type { WakeNotice } from "../../domain/message-to-claw.ts";
import type { Wake } from "../../domain/wake.ts";

const NO_BYTES = new Uint8Array(0);

/** @param withPayload whether the caller may read the payload */
export function wakeMessage(wake: Wake, withPayload: boolean): WakeMessage {
  return create(WakeSchema, {
    wakeId: wake.wakeId,
    agentId: wake.agentId,
    state: WAKE_STATE_VALUES[wake.state],
    reason: wake.reason === null ? WakeReason.UNSPECIFIED : WAKE_REASON_VALUES[wake.reason],
    claim: STATUS_VALUES[wake.claim],
    ifUnavailable: IF_UNAVAILABLE_VALUES[wake.ifUnavailable],
    answerWithin: durationOf(wake.answerWithinMs),
    maxOffers: wake.maxOffers,
    expiresAt: timestampOf(wake.expiresAt),
    payload: (withPayload ? wake.payload : null) ?? NO_BYTES,
    actor: wake.actor,
    createdAt: timestampOf(wake.createdAt),
    offers: wake.offers,
    offerRevision: wake.offerRevision,
    answerBy: timestampOrUnset(wake.answerBy),
    acceptedAt: timestampOrUnset(wake.acceptedAt),
    acceptedBy: wake.acceptedBy ?? "",
    endedAt: timestampOrUnset(wake.endedAt),
    outcome: wake.outcome === null ? WakeOutcome.UNSPECIFIED : WAKE_OUTCOME_VALUES[wake.outcome],
    note: wake.note,
    lateOutcome: wake.lateOutcome === null ? WakeOutcome.UNSPECIFIED : WAKE_OUTCOME_VALUES[wake.lateOutcome],
    cancelRequestedAt: timestampOrUnset(wake.cancelRequestedAt),
    cancelNote: wake.cancelNote,
    revision: wake.revision,
  });
}

/** The state of a wake for the claw whose stream holds its agent. */
export function wakeUpdateMessage(notice: WakeNotice): WakeUpdate {
  return create(WakeUpdateSchema, {
    agentId: notice.agentId,
    wakeId: notice.wakeId,
    offerRevision: notice.offerRevision,
    state: WAKE_STATE_VALUES[notice.state],
    claim: STATUS_VALUES[notice.claim],
    answerWithin: notice.answerWithinMs === null ? undefined : durationOf(notice.answerWithinMs),
    payload: notice.payload ?? NO_BYTES,
    cancelRequested: notice.isCancelRequested,
    expiresAt: timestampOf(notice.expiresAt),
    reason: notice.reason === null ? WakeReason.UNSPECIFIED : WAKE_REASON_VALUES[notice.reason],
  });
}
