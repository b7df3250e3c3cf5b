import type { AgentStatus, TransitionCause, WakeReason, WakeState } from "../../common/contract/enum-names.ts";
import type { Micros } from "../../common/contract/time.ts";
import type { LiveWakeState, OpenWake, WakeWrite } from "./wake.ts";

/**
 * What happens to a wake, or to its agent. An event of the agent (a report, its lease) counts only where the agent does not
 * act for the wake itself.
 */
export const WAKE_EVENTS = [
  /** The agent is admissible. */
  "offer",
  /** `expires_at` has passed. */
  "expire",
  /** ACCEPT or WORKING, in time. */
  "accept",
  "decline",
  "finish",
  /** `answer_by` has passed. */
  "no_answer",
  /** The agent reports that it is busy, or on a call, and does not know of the claim. */
  "busy",
  "on_call",
  "exhausted",
  /** The agent reports idle, and knows of the acceptance, without a FINISHED. */
  "idle",
  /** A goodbye. */
  "leave",
  /** The lease expired. */
  "lease_end",
  /** The agent stayed offline for one more lease. */
  "abandon",
  /** A session that takes no wakes took the agent over. */
  "lose_session",
  "move",
  "cancel",
  "delete",
  /** A service sets another status: EXHAUSTED; IDLE or OFFLINE; BUSY or ON_CALL. */
  "service_exhausted",
  "service_free",
  "service_work",
] as const;
export type WakeEvent = (typeof WAKE_EVENTS)[number];

/** `"given"`: the reason comes with the event. */
type Reason = WakeReason | null | "given";

type Step =
  | { readonly to: WakeState; readonly reason: Reason }
  /** EXPIRED if `expires_at` has passed; else QUEUED if the wake may be queued and offered again; else `to`. */
  | { readonly requeueOr: WakeState; readonly reason: WakeReason };

const to = (state: WakeState, reason: Reason = null): Step => ({ to: state, reason });
const requeueOr = (state: WakeState, reason: WakeReason): Step => ({ requeueOr: state, reason });

/** The whole state table of wakes. An event without an entry changes nothing. */
export const WAKE_TABLE: Readonly<Record<LiveWakeState, Readonly<Partial<Record<WakeEvent, Step>>>>> = {
  queued: {
    offer: to("offered"),
    expire: to("expired", "given"),
    cancel: to("cancelled"),
    delete: to("cancelled", "deleted"),
  },
  offered: {
    accept: to("accepted"),
    decline: to("declined", "given"),
    finish: to("finished"),
    no_answer: requeueOr("lapsed", "no_answer"),
    busy: requeueOr("declined", "busy"),
    on_call: requeueOr("declined", "on_call"),
    exhausted: requeueOr("declined", "exhausted"),
    leave: requeueOr("lapsed", "leaving"),
    lease_end: requeueOr("lapsed", "offline"),
    lose_session: requeueOr("lapsed", "no_session"),
    move: requeueOr("lapsed", "moved"),
    cancel: to("cancelled"),
    delete: to("cancelled", "deleted"),
    service_exhausted: requeueOr("declined", "exhausted"),
    service_free: to("cancelled", "service"),
    service_work: to("cancelled", "service"),
  },
  accepted: {
    finish: to("finished"),
    idle: to("abandoned", "unreported"),
    leave: to("abandoned", "leaving"),
    abandon: to("abandoned", "offline"),
    move: to("abandoned", "moved"),
    delete: to("abandoned", "deleted"),
    service_free: to("abandoned", "service"),
  },
};

/**
 * The causes that take an agent with a wake from one status to another, in addition to `STATUS_TABLE`: an offer claims it, the
 * end of an offer or of the work frees it, and an agent that works for a wake comes back to the claim of the wake. Every
 * change of a wake is a transition, so there are transitions from each status to itself.
 */
export const WAKE_STATUS_TABLE: Readonly<
  Record<AgentStatus, Readonly<Partial<Record<AgentStatus, readonly TransitionCause[]>>>>
> = {
  idle: { on_call: ["wake"], busy: ["wake"] },
  on_call: { idle: ["wake", "moved"] },
  busy: { idle: ["wake", "moved"] },
  exhausted: { on_call: ["recovery"], busy: ["recovery"] },
  offline: { on_call: ["heartbeat"], busy: ["heartbeat"] },
};

/** Events after which an agent that still tells of the claim may not know that the offer has ended. */
const ENDS_WITHOUT_THE_AGENT: ReadonlySet<WakeEvent> = new Set([
  "no_answer",
  "lose_session",
  "move",
  "cancel",
  "service_free",
  "service_work",
]);

/** The fields of a wake that a step is judged by. */
export type SteppingWake = Pick<
  OpenWake,
  "wakeId" | "ifUnavailable" | "offers" | "maxOffers" | "expiresAt" | "offerRevision"
> & { readonly state: LiveWakeState };

/**
 * The change of a wake by an event. Undefined: the event changes nothing.
 *
 * @param now the database's clock
 * @param reason for the rows of the table where it comes with the event
 */
export function stepOf(
  wake: SteppingWake,
  event: WakeEvent,
  now: Micros,
  reason: WakeReason | null = null,
): WakeWrite | undefined {
  const step = WAKE_TABLE[wake.state][event];
  if (step === undefined) return undefined;
  const common = {
    wakeId: wake.wakeId,
    from: { state: wake.state, offerRevision: wake.offerRevision },
    ...(wake.state === "offered" && ENDS_WITHOUT_THE_AGENT.has(event) ? { isUndone: true as const } : {}),
  };
  if ("to" in step) return { ...common, state: step.to, reason: step.reason === "given" ? reason : step.reason };
  if (wake.expiresAt <= now) return { ...common, state: "expired", reason: step.reason, due: "answer" };
  const isQueuedAgain = wake.ifUnavailable === "queue" && wake.offers < wake.maxOffers;
  return { ...common, state: isQueuedAgain ? "queued" : step.requeueOr, reason: step.reason };
}
