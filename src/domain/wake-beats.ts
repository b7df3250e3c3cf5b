import type { WakeReason } from "../../common/contract/enum-names.ts";
import type { Micros } from "../../common/contract/time.ts";
import type { Agent } from "./agent.ts";
import { KEEP_EXHAUSTION } from "./exhaustion.ts";
import { type Beat, type BeatVerdict, judgeBeat, judgeGoodbye, type StatusChange } from "./status-machine.ts";
import { type OpenWake, WAKE_SETTLING_MS, type Wake, type WakeReplyResult, type WakeWrite } from "./wake.ts";
import { stepOf, type WakeEvent } from "./wake-machine.ts";
import { type JudgedReplies, judgeReplies, type Replier } from "./wake-replies.ts";

/** What a beat of an agent with wakes does: to the agent and to its wakes, as one change. */
export interface WakeBeatVerdict {
  readonly status: BeatVerdict;
  readonly wakes: readonly WakeWrite[];
  /** One for each reply of the beat. */
  readonly results: readonly WakeReplyResult[];
}

const RENEW: BeatVerdict = { kind: "renew" };
const NO_RESULTS: readonly WakeReplyResult[] = [];
const NO_WRITES: ReadonlyMap<string, WakeWrite> = new Map();

/** Whether the beat has to be judged by `judgeWakeBeat`. Nearly no beat has to. */
export function concernsWakes({ wakes }: Pick<Agent, "wakes">, beat: Beat | "leaving"): boolean {
  return wakes !== null || (beat !== "leaving" && beat.replies !== undefined);
}

/**
 * Judges a beat of an agent that has wakes, or that replies to some: the replies first, then the status.
 *
 * @param known the wakes that the replies name and that belong to the agent
 * @param now the database's clock
 * @param random uniform in [0, 1)
 */
export function judgeWakeBeat(
  agent: Agent,
  beat: Beat | "leaving",
  known: ReadonlyMap<string, Wake>,
  replier: Replier,
  now: Micros,
  random: number,
): WakeBeatVerdict {
  const open = agent.wakes?.open ?? null;
  const replies = beat === "leaving" ? undefined : beat.replies;
  const judged: JudgedReplies =
    replies === undefined
      ? { results: NO_RESULTS, writes: NO_WRITES, open, ended: undefined, isWorking: false, hasSucceeded: false }
      : judgeReplies(open, known, replies, replier, now);
  const after = statusAfter(agent, beat, judged, now, random);
  const writes = new Map(judged.writes);
  if (judged.open !== null && after.event !== undefined) {
    const step = stepOf(judged.open, after.event, now, after.reason);
    const former = writes.get(judged.open.wakeId);
    if (step !== undefined) {
      writes.set(step.wakeId, former === undefined ? step : { ...former, ...step, from: former.from });
    }
  }
  const back = judged.open === null ? undefined : backWrite(agent, judged.open, after.status);
  if (back !== undefined && !writes.has(back.wakeId)) writes.set(back.wakeId, back);
  return { status: after.status, wakes: [...writes.values()], results: judged.results };
}

/** The agent of an accepted wake comes back: the wake is not abandoned. */
function backWrite(agent: Agent, open: OpenWake, status: BeatVerdict): WakeWrite | undefined {
  const change = status.kind === "held_off" ? status.change : status;
  if (open.abandonAt === null || agent.status !== "offline" || change?.kind !== "change") return undefined;
  return { ...unchanged(open), abandon: "clear" };
}

/** A write that leaves the state of an open wake. */
export function unchanged({ wakeId, state, offerRevision }: OpenWake): WakeWrite {
  return { wakeId, from: { state, offerRevision }, state, reason: null };
}

interface StatusAfter {
  readonly status: BeatVerdict;
  /** What the report means for the wake that is open after the replies. */
  readonly event?: WakeEvent;
  readonly reason?: WakeReason;
}

function statusAfter(
  agent: Agent,
  beat: Beat | "leaving",
  judged: JudgedReplies,
  now: Micros,
  random: number,
): StatusAfter {
  if (beat === "leaving" || beat.leaving === true) {
    const goodbye = judgeGoodbye(agent);
    return goodbye === undefined ? { status: RENEW } : { status: goodbye, event: "leave" };
  }
  // After the end of its wake the agent is judged as if it were free already: its own report counts.
  if (judged.ended !== undefined) return { status: afterEnd(agent, beat, judged, now, random) };
  const { open } = judged;
  if (open === null) return { status: withoutWake(agent, beat, now, random) };
  return open.state === "offered"
    ? duringOffer(agent, open, beat, now, random)
    : duringWork(agent, open, beat, judged.isWorking, now, random);
}

/** The status of the same beat, else IDLE where the agent still has the status of the claim. A hold of a service applies. */
function afterEnd(agent: Agent, beat: Beat, judged: JudgedReplies, now: Micros, random: number): BeatVerdict {
  // The agent believed that the offer was still open.
  if (judged.ended === "expired") return idle();
  const claim = agent.wakes?.open?.claim;
  const wasOffered = agent.wakes?.open?.state === "offered";
  const report = beat.report ?? (agent.status === claim ? "idle" : undefined);
  const verdict = judgeBeat(agent, { ...beat, report }, now, random);
  // The hold of a service is about its own status. One from before the offer says nothing about the claim of the offer.
  const isFreed = verdict.kind === "held_off" && wasOffered && agent.status === claim;
  if (isFreed) return { ...idle(), forgetBackoff: judged.hasSucceeded };
  if (verdict.kind !== "change") return verdict;
  const cause = beat.report === undefined && verdict.cause === "report" ? "wake" : verdict.cause;
  return { ...verdict, cause, forgetBackoff: verdict.forgetBackoff && judged.hasSucceeded };
}

function withoutWake(agent: Agent, beat: Beat, now: Micros, random: number): BeatVerdict {
  const undone = agent.wakes?.undone ?? null;
  const knows = beat.knownRevision;
  const isOldView =
    undone !== null &&
    undone.until > now &&
    beat.report === undone.claim &&
    agent.status !== undone.claim &&
    knows !== undefined &&
    knows >= undone.offerRevision &&
    knows < undone.endRevision;
  if (!isOldView) return judgeBeat(agent, beat, now, random);
  return heldOff(agent, now, random);
}

function duringOffer(agent: Agent, open: OpenWake, beat: Beat, now: Micros, random: number): StatusAfter {
  const { report, knownRevision } = beat;
  if (report === undefined) return { status: RENEW };
  const { hold } = agent;
  const isHeld = hold !== null && hold.until > now && (knownRevision === undefined || knownRevision < hold.revision);
  if (isHeld || report === "idle") return { status: HELD_OFF };
  if (typeof report === "object") return { status: judgeBeat(agent, beat, now, random), event: "exhausted" };
  const knows = knownRevision !== undefined && knownRevision >= open.offerRevision;
  if (knows) return { status: report === open.claim ? RENEW : HELD_OFF };
  const undone = agent.wakes?.undone ?? null;
  const isOldView =
    undone !== null &&
    undone.until > now &&
    report === undone.claim &&
    knownRevision !== undefined &&
    knownRevision >= undone.offerRevision;
  if (isOldView) return { status: HELD_OFF };
  return { status: report === agent.status ? RENEW : judgeBeat(agent, beat, now, random), event: report };
}

function duringWork(
  agent: Agent,
  open: OpenWake,
  beat: Beat,
  isWorking: boolean,
  now: Micros,
  random: number,
): StatusAfter {
  const { report, knownRevision } = beat;
  if (report !== "idle") {
    const verdict = judgeBeat(agent, beat, now, random);
    return { status: toClaim(agent, open, verdict, report === undefined) };
  }
  const { acceptedAt, acceptedRevision } = open;
  const knows = acceptedRevision !== null && knownRevision !== undefined && knownRevision >= acceptedRevision;
  const isSettled = acceptedAt !== null && now >= acceptedAt + WAKE_SETTLING_MS * 1_000;
  if (isWorking || (!knows && !isSettled)) return { status: toClaim(agent, open, heldOff(agent, now, random), true) };
  const verdict = judgeBeat(agent, beat, now, random);
  if (verdict.kind === "held_off") return { status: toClaim(agent, open, verdict, true) };
  return {
    status: verdict.kind === "change" ? { ...verdict, forgetBackoff: false } : verdict,
    event: "idle",
  };
}

const HELD_OFF: BeatVerdict = { kind: "held_off", change: null };

/** The report is outdated: it renews the lease, and brings an offline agent back without its status. */
function heldOff(agent: Agent, now: Micros, random: number): BeatVerdict {
  const back = judgeBeat(agent, { report: undefined, knownRevision: undefined }, now, random);
  return { kind: "held_off", change: back.kind === "change" ? back : null };
}

/** An agent that works for a wake comes back to the status of its claim, and not to `idle`. */
function toClaim(agent: Agent, open: OpenWake, verdict: BeatVerdict, isWithoutStatus: boolean): BeatVerdict {
  if (agent.status !== "offline" || !isWithoutStatus) return verdict;
  if (verdict.kind === "change") return claimInstead(open, verdict);
  if (verdict.kind !== "held_off" || verdict.change === null) return verdict;
  return { kind: "held_off", change: claimInstead(open, verdict.change) };
}

/** A change to `idle`, made a change to the claim of the agent's accepted wake. */
export function claimInstead(open: Pick<OpenWake, "claim">, change: StatusChange): StatusChange {
  return change.status === "idle" ? { ...change, status: open.claim } : change;
}

/** The agent is free again, by the end of an offer. */
export function idle(): StatusChange {
  return {
    kind: "change",
    status: "idle",
    cause: "wake",
    exhaustion: KEEP_EXHAUSTION,
    hold: { kind: "keep" },
    forgetBackoff: false,
    notBefore: null,
  };
}
