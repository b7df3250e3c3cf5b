import { toRfc3339 } from "../../common/contract/time.ts";
import { WAKE_SETTLING_MS, type WakeWrite } from "../domain/wake.ts";

/** The limit that an offer exceeds: as the contract names it in `metadata.limit`. */
export type OfferLimit = "wakesPerSecond" | "offersPerClaw";

/**
 * The JSON form of the changes of wakes of one member, for `commit_with_wakes` (the SQL type `wake_change`).
 *
 * @param n the index of the member in its group
 */
export function wakeMembersOf(n: number, writes: readonly WakeWrite[]): object[] {
  // The transition names the wake that changed: not one whose deadline only follows its agent.
  const named = writes.find(({ abandon }) => abandon === undefined);
  return writes.map((write) => ({
    n,
    wake_id: write.wakeId,
    named: write === named,
    state: write.state,
    reason: write.reason,
    offers: write.offers ?? false,
    accepted_by: write.acceptedBy,
    outcome: write.outcome,
    note: write.note,
    late_outcome: write.lateOutcome,
    cancels: write.requestsCancel ?? false,
    cancel_note: write.cancelNote,
    abandon: write.abandon,
    undone_ms: write.isUndone ? WAKE_SETTLING_MS : undefined,
    due: write.due,
    in_time: write.inTime ?? false,
    ...fromOf(write.from),
  }));
}

function fromOf(from: WakeWrite["from"]): object {
  if ("state" in from) return { from_state: from.state, from_offer_revision: from.offerRevision.toString() };
  const { wake } = from;
  return {
    claim: wake.claim,
    if_unavailable: wake.ifUnavailable,
    answer_within_ms: wake.answerWithinMs,
    max_offers: wake.maxOffers,
    expires_at: toRfc3339(wake.expiresAt),
    payload: Buffer.from(wake.payload).toString("base64"),
    content_hash: Buffer.from(from.contentHash).toString("base64"),
    principal: from.principal,
    actor: from.actor,
  };
}
