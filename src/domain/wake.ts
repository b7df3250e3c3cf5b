import type {
  DeclineReason,
  IfUnavailable,
  WakeClaim,
  WakeOutcome,
  WakeReason,
  WakeReplyType,
  WakeState,
} from "../../common/contract/enum-names.ts";
import type { Micros } from "../../common/contract/time.ts";
import type { Refusal } from "./errors.ts";

/** Wakes of one agent that may be queued. */
export const MAX_QUEUED_WAKES = 16;
export const DEFAULT_ANSWER_WITHIN_MS = 30_000;
export const DEFAULT_MAX_OFFERS = 3;
/** The largest number of replies in a beat. */
export const MAX_WAKE_REPLIES = 16;
/** The longest note in bytes of UTF-8. */
export const LONGEST_NOTE_BYTES = 1_024;
/**
 * For so many milliseconds after its acceptance a wake survives a report of `idle` by an agent that may not know of it. For
 * the same time after the end of an offer the server does not take a report of its claim for new work.
 */
export const WAKE_SETTLING_MS = 60_000;

/** The states in which a wake can still change. */
export type LiveWakeState = Extract<WakeState, "queued" | "offered" | "accepted">;

/** The part of a wake that does not change. */
export interface NewWake {
  readonly wakeId: string;
  readonly agentId: string;
  readonly claim: WakeClaim;
  readonly ifUnavailable: IfUnavailable;
  readonly answerWithinMs: number;
  readonly maxOffers: number;
  readonly expiresAt: Micros;
  readonly payload: Uint8Array;
}

/** A wake as the database stores it. */
export interface Wake extends Omit<NewWake, "payload"> {
  /** The place in the queue: ascends in the order of creation. */
  readonly id: bigint;
  /** The row of its agent, which may be deleted. */
  readonly agent: bigint;
  readonly state: WakeState;
  readonly reason: WakeReason | null;
  /** Null after the end of the wake. */
  readonly payload: Uint8Array | null;
  /** The requester (`requesterOf`) that created it. */
  readonly principal: string;
  readonly actor: string;
  readonly createdAt: Micros;
  readonly offers: number;
  /** The fencing token of the newest offer; 0 before the first one. */
  readonly offerRevision: bigint;
  /** Null unless the wake is offered. */
  readonly answerBy: Micros | null;
  readonly acceptedAt: Micros | null;
  readonly acceptedRevision: bigint | null;
  /** The `instance_id` of the process that accepted. */
  readonly acceptedBy: string | null;
  /** When the wake is abandoned if its agent stays offline; null unless it is accepted and its agent offline. */
  readonly abandonAt: Micros | null;
  readonly endedAt: Micros | null;
  readonly outcome: WakeOutcome | null;
  readonly note: string;
  readonly lateOutcome: WakeOutcome | null;
  readonly cancelRequestedAt: Micros | null;
  readonly cancelNote: string;
  readonly revision: bigint;
}

/** The fields of a live wake that changes are judged by. */
export interface OpenWake
  extends Pick<
    Wake,
    | "wakeId"
    | "claim"
    | "ifUnavailable"
    | "offers"
    | "maxOffers"
    | "expiresAt"
    | "answerBy"
    | "offerRevision"
    | "acceptedAt"
    | "acceptedRevision"
    | "acceptedBy"
    | "abandonAt"
  > {
  readonly state: Extract<WakeState, "offered" | "accepted">;
  readonly isCancelRequested: boolean;
}

/** The service ended an offer a moment ago, so an agent that tells of its claim may not know of the end. */
export interface UndoneClaim {
  readonly claim: WakeClaim;
  readonly offerRevision: bigint;
  readonly endRevision: bigint;
  readonly until: Micros;
}

/** What an agent is judged by beside its own fields. Null in `Agent.wakes`: nothing of this. */
export interface AgentWakes {
  /** The wake that is offered or accepted. */
  readonly open: OpenWake | null;
  readonly queued: number;
  readonly undone: UndoneClaim | null;
  /** Of the agent, else of its claw. Null also where the agent was read to be judged. */
  readonly pause: Pause | null;
}

/** The reply of an agent to a wake. */
export interface WakeReply {
  readonly wakeId: string;
  readonly offerRevision: bigint;
  readonly type: WakeReplyType;
  /** Of a decline. */
  readonly reason: DeclineReason;
  /** Of a finish. */
  readonly outcome: WakeOutcome;
  readonly note: string;
}

export interface WakeReplyResult {
  readonly wakeId: string;
  /** After the reply; null: the wake is unknown to this agent. */
  readonly state: WakeState | null;
  readonly refusal: Refusal | null;
}

/** While it lasts, the service offers nothing to an agent, or to any agent of a claw. */
export interface Pause {
  readonly target: PauseTarget;
  readonly since: Micros;
  /** Null: until it is resumed. */
  readonly until: Micros | null;
  readonly note: string;
  readonly actor: string;
}

export type PauseTarget = { readonly agentId: string } | { readonly clawIdentifier: string };

/** Whether the wake has ended. */
export function isTerminal(state: WakeState): boolean {
  return state !== "queued" && state !== "offered" && state !== "accepted";
}

/** The change of a wake, to be committed with the change of its agent. Missing fields stay unchanged. */
export interface WakeWrite {
  readonly wakeId: string;
  /** The state that the change was judged by, which must still hold at the commit; or the content of a new wake. */
  readonly from:
    | { readonly state: WakeState; readonly offerRevision: bigint }
    | { readonly wake: NewWake; readonly contentHash: Uint8Array; readonly principal: string; readonly actor: string };
  readonly state: WakeState;
  readonly reason: WakeReason | null;
  /** Makes an offer, which claims the agent. */
  readonly offers?: true;
  /** The `instance_id` of the process that accepts. */
  readonly acceptedBy?: string;
  readonly outcome?: WakeOutcome;
  readonly note?: string;
  readonly lateOutcome?: WakeOutcome;
  /** The note of a cancellation. */
  readonly cancelNote?: string;
  /** Whether the cancellation is a request to the agent. */
  readonly requestsCancel?: true;
  /** The agent of an accepted wake goes offline (`lease`: the wake is abandoned after one more lease), or comes back. */
  readonly abandon?: "lease" | "clear";
  /** The offer ended without an act of the agent. */
  readonly isUndone?: true;
  /** Applies only if this deadline has passed by the database's clock. */
  readonly due?: "expiry" | "answer" | "abandon";
  /** Applies only before `expires_at`, by the database's clock. */
  readonly inTime?: true;
}
