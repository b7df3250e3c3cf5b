import {
  IF_UNAVAILABLE,
  WAKE_OUTCOMES,
  WAKE_REASONS,
  WAKE_STATES,
  type WakeClaim,
  type WakeOutcome,
  type WakeReason,
  type WakeState,
} from "../../common/contract/enum-names.ts";
import type { Micros } from "../../common/contract/time.ts";
import type { NamedWake } from "../domain/agent.ts";
import type { AgentWakes, OpenWake, Pause, UndoneClaim, Wake } from "../domain/wake.ts";

/** A row of the table `wakes`. */
export interface WakeRow {
  readonly id: bigint;
  readonly wake_id: string;
  readonly agent: bigint;
  readonly agent_id: string;
  readonly state: string;
  readonly reason: string | null;
  readonly claim: string;
  readonly if_unavailable: string;
  readonly answer_within_ms: number;
  readonly max_offers: number;
  readonly expires_at: Micros;
  readonly payload: Buffer | null;
  readonly content_hash: Buffer;
  readonly principal: string;
  readonly actor: string;
  readonly created_at: Micros;
  readonly revision: bigint;
  readonly offers: number;
  readonly offer_revision: bigint;
  readonly answer_by: Micros | null;
  readonly accepted_at: Micros | null;
  readonly accepted_revision: bigint | null;
  readonly accepted_by: string | null;
  readonly abandon_at: Micros | null;
  readonly ended_at: Micros | null;
  readonly outcome: string | null;
  readonly note: string;
  readonly late_outcome: string | null;
  readonly cancel_requested_at: Micros | null;
  readonly cancel_note: string;
}

/** `open_wakes.open_wake`: revisions are text, instants microseconds. */
export interface OpenWakeJson {
  readonly wakeId: string;
  readonly state: string;
  readonly claim: string;
  readonly ifUnavailable: string;
  readonly offers: number;
  readonly maxOffers: number;
  readonly expiresAt: number;
  readonly answerBy: number | null;
  readonly offerRevision: string;
  readonly acceptedAt: number | null;
  readonly acceptedRevision: string | null;
  readonly acceptedBy: string | null;
  readonly isCancelRequested: boolean;
  readonly abandonAt: number | null;
}

export interface UndoneClaimJson {
  readonly claim: string;
  readonly offerRevision: string;
  readonly endRevision: string;
  readonly until: number;
}

export interface PauseJson {
  readonly agentId: string | null;
  readonly clawIdentifier: string | null;
  readonly since: number;
  readonly until: number | null;
  readonly note: string;
  readonly actor: string;
}

interface WakesColumns {
  readonly open_wake?: OpenWakeJson | null | undefined;
  readonly queued_wakes?: number | null | undefined;
  readonly undone_claim?: UndoneClaimJson | null | undefined;
  readonly pause?: PauseJson | null | undefined;
}

/** Null where there is nothing, as for nearly all agents. */
export function wakesFromRow({ open_wake, queued_wakes, undone_claim, pause }: WakesColumns): AgentWakes | null {
  const open = open_wake ?? null;
  const undone = undone_claim ?? null;
  const queued = queued_wakes ?? 0;
  const paused = pause ?? null;
  if (open === null && undone === null && queued === 0 && paused === null) return null;
  return {
    open: open === null ? null : openWakeFromJson(open),
    queued,
    undone: undone === null ? null : undoneClaimFromJson(undone),
    pause: paused === null ? null : pauseFromJson(paused),
  };
}

function openWakeFromJson(json: OpenWakeJson): OpenWake {
  const state = stateOf(json.state);
  if (state !== "offered" && state !== "accepted") throw new TypeError(`an open wake is ${state}`);
  return {
    ...json,
    state,
    claim: claimOf(json.claim),
    ifUnavailable: known(BY_IF_UNAVAILABLE, json.ifUnavailable, "if_unavailable"),
    offerRevision: BigInt(json.offerRevision),
    acceptedRevision: json.acceptedRevision === null ? null : BigInt(json.acceptedRevision),
  };
}

function undoneClaimFromJson({ claim, offerRevision, endRevision, until }: UndoneClaimJson): UndoneClaim {
  return { claim: claimOf(claim), offerRevision: BigInt(offerRevision), endRevision: BigInt(endRevision), until };
}

/** @throws TypeError if the JSON has no target */
export function pauseFromJson({ agentId, clawIdentifier, since, until, note, actor }: PauseJson): Pause {
  if (agentId !== null) return { target: { agentId }, since, until, note, actor };
  if (clawIdentifier === null) throw new TypeError("a pause has no target");
  return { target: { clawIdentifier }, since, until, note, actor };
}

/** A reason and an outcome of a newer program are null: UNSPECIFIED in the contract. */
export function wakeFromRow(row: WakeRow): Wake {
  return {
    id: row.id,
    agent: row.agent,
    wakeId: row.wake_id,
    agentId: row.agent_id,
    state: stateOf(row.state),
    reason: BY_REASON.get(row.reason ?? "") ?? null,
    claim: claimOf(row.claim),
    ifUnavailable: known(BY_IF_UNAVAILABLE, row.if_unavailable, "if_unavailable"),
    answerWithinMs: row.answer_within_ms,
    maxOffers: row.max_offers,
    expiresAt: row.expires_at,
    payload: row.payload,
    principal: row.principal,
    actor: row.actor,
    createdAt: row.created_at,
    offers: row.offers,
    offerRevision: row.offer_revision,
    answerBy: row.answer_by,
    acceptedAt: row.accepted_at,
    acceptedRevision: row.accepted_revision,
    acceptedBy: row.accepted_by,
    abandonAt: row.abandon_at,
    endedAt: row.ended_at,
    outcome: outcomeOf(row.outcome),
    note: row.note,
    lateOutcome: outcomeOf(row.late_outcome),
    cancelRequestedAt: row.cancel_requested_at,
    cancelNote: row.cancel_note,
    revision: row.revision,
  };
}

export function namedWake(wakeId: string | null, state: string | null): NamedWake | null {
  return wakeId === null || state === null ? null : { wakeId, state: BY_STATE.get(state) ?? "unknown" };
}

const BY_STATE: ReadonlyMap<string, WakeState> = new Map(WAKE_STATES.map((one) => [one, one]));
const BY_REASON: ReadonlyMap<string, WakeReason> = new Map(WAKE_REASONS.map((one) => [one, one]));
const BY_OUTCOME: ReadonlyMap<string, WakeOutcome> = new Map(WAKE_OUTCOMES.map((one) => [one, one]));
const BY_CLAIM: ReadonlyMap<string, WakeClaim> = new Map([
  ["on_call", "on_call"],
  ["busy", "busy"],
]);
const BY_IF_UNAVAILABLE: ReadonlyMap<string, (typeof IF_UNAVAILABLE)[number]> = new Map(
  IF_UNAVAILABLE.map((one) => [one, one]),
);

function stateOf(text: string): WakeState {
  return known(BY_STATE, text, "state");
}

function claimOf(text: string): WakeClaim {
  return known(BY_CLAIM, text, "claim");
}

/** Null also for an outcome of a newer program. */
function outcomeOf(text: string | null): WakeOutcome | null {
  return BY_OUTCOME.get(text ?? "") ?? null;
}

/**
 * Programs judge by these columns. A program writes a new value one release after the first one that knows it (docs/upgrading.md).
 * The database checks them. So an unknown value comes from a newer program.
 */
function known<Value>(values: ReadonlyMap<string, Value>, text: string, column: string): Value {
  const value = values.get(text);
  if (value === undefined) throw new TypeError(`unknown ${column} of a wake in the database: ${text}`);
  return value;
}
