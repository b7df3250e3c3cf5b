import { type Micros, toRfc3339 } from "../contract/time.ts";
import type { AgentStatus, ReportedExhaustion, TransitionCause, WorkingStatus } from "../contract/words.ts";
import type { AgentCondition, Exhaustion } from "./agent.ts";
import { Refusal } from "./errors.ts";
import { CLEAR_EXHAUSTION, type ExhaustionChange, exhaustionAfter, KEEP_EXHAUSTION } from "./exhaustion.ts";

/**
 * Which causes may take an agent from one status to another: the whole status machine at a glance. The functions
 * below decide; a transition that is not in this table is a defect, and the database's log is checked against it.
 * From a status to itself there is a transition only where an exhaustion changes.
 */
export const STATUS_TABLE: Readonly<Record<AgentStatus, Readonly<Record<AgentStatus, readonly TransitionCause[]>>>> = {
  idle: {
    idle: [],
    on_call: ["report", "service"],
    busy: ["report", "service"],
    exhausted: ["report", "service"],
    offline: ["lease_expired", "goodbye", "service"],
  },
  on_call: {
    idle: ["report", "service"],
    on_call: [],
    busy: ["report", "service"],
    exhausted: ["report", "service"],
    offline: ["lease_expired", "goodbye", "service"],
  },
  busy: {
    idle: ["report", "service"],
    on_call: ["report", "service"],
    busy: [],
    exhausted: ["report", "service"],
    offline: ["lease_expired", "goodbye", "service"],
  },
  exhausted: {
    idle: ["recovery", "report", "service"],
    on_call: ["report"],
    busy: ["report"],
    exhausted: ["report", "service"],
    offline: ["lease_expired", "goodbye", "service"],
  },
  offline: {
    idle: ["report", "heartbeat"],
    on_call: ["report"],
    busy: ["report"],
    exhausted: ["report", "heartbeat"],
    // The exhaustion changes, the agent stays offline: a service records or clears it, or its time is over.
    offline: ["service", "recovery"],
  },
};

/** What a service's word does when the caller names no hold. */
export const DEFAULT_HOLD_MS = 60_000;
export const LONGEST_HOLD_MS = 3_600_000;

/** What becomes of the hold: ends, stays, or begins (for some time, or until the exhaustion recovers). */
export type HoldChange =
  | { readonly kind: "keep" }
  | { readonly kind: "clear" }
  | { readonly kind: "set"; readonly forMs: number | "until_recovery" };

/** A transition that is to be made. */
export interface StatusChange {
  readonly kind: "change";
  readonly status: AgentStatus;
  readonly cause: TransitionCause;
  readonly exhaustion: ExhaustionChange;
  readonly hold: HoldChange;
  /** Whether the server's own backoff starts afresh: the agent finished some work. */
  readonly forgetBackoff: boolean;
  /** The decision rests on this instant being past by the database's clock; before it the change must not apply. */
  readonly notBefore: Micros | null;
}

export type BeatVerdict =
  /** Nothing changes but the lease. */
  | { readonly kind: "renew" }
  /** The report agrees with what a service set: the hold ends, which is no transition. */
  | { readonly kind: "confirm" }
  /** The report is older than what a service set: the lease is renewed, or the agent brought back, but not as reported. */
  | { readonly kind: "held_off"; readonly change: StatusChange | null }
  | StatusChange;

/** What an agent says in a heartbeat that is not a goodbye. */
export interface Beat {
  /** Undefined: the agent says only that it is alive. */
  readonly report: WorkingStatus | { readonly exhausted: ReportedExhaustion } | undefined;
  /** The newest revision of itself that the agent has heard of. */
  readonly knownRevision: bigint | undefined;
}

const KEEP_HOLD: HoldChange = { kind: "keep" };
const CLEAR_HOLD: HoldChange = { kind: "clear" };
const RENEW: BeatVerdict = { kind: "renew" };
const CONFIRM: BeatVerdict = { kind: "confirm" };

function change(
  status: AgentStatus,
  cause: TransitionCause,
  exhaustion: ExhaustionChange,
  hold: HoldChange,
  more: { forgetBackoff?: boolean; notBefore?: Micros | null } = {},
): StatusChange {
  const { forgetBackoff = false, notBefore = null } = more;
  return { kind: "change", status, cause, exhaustion, hold, forgetBackoff, notBefore };
}

/** Judges a heartbeat. `now` is the database's clock, `random` uniform in [0, 1). */
export function judgeBeat(agent: AgentCondition, beat: Beat, now: Micros, random: number): BeatVerdict {
  if (beat.report === undefined) return comeBack(agent, now) ?? RENEW;
  const hold = agent.hold !== null && agent.hold.until > now ? agent.hold : null;
  const knows = hold === null || (beat.knownRevision !== undefined && beat.knownRevision >= hold.revision);
  const agrees = agreesWith(agent, beat.report);
  if (!knows && !agrees) return { kind: "held_off", change: comeBack(agent, now) };
  const verdict =
    typeof beat.report === "string"
      ? reportWorking(agent, beat.report)
      : reportExhausted(agent, beat.report.exhausted, now, random);
  if (verdict.kind !== "renew") return verdict;
  return hold !== null && agrees ? CONFIRM : RENEW;
}

/** Whether a report says what a service set, as far as an agent that has not heard of it can say so. */
function agreesWith(
  agent: AgentCondition,
  report: WorkingStatus | { readonly exhausted: ReportedExhaustion },
): boolean {
  // The same reason, that is: an agent that repeats its rate limit has not heard that its account is empty. Also
  // where it was marked exhausted while offline, so that its status differs.
  if (typeof report === "object") return agent.exhaustion?.reason === report.exhausted.reason;
  // What a service took from an offline agent is its exhaustion; whatever work the agent reports agrees with that.
  return report === agent.status || (agent.status === "offline" && agent.exhaustion === null);
}

/** An offline agent that beats is back; to what, its exhaustion says. Null for an agent that is not offline. */
function comeBack(agent: AgentCondition, now: Micros): StatusChange | null {
  if (agent.status !== "offline") return null;
  if (agent.exhaustion === null) return change("idle", "heartbeat", KEEP_EXHAUSTION, KEEP_HOLD);
  if (agent.exhaustion.recoveryAt > now) return change("exhausted", "heartbeat", KEEP_EXHAUSTION, KEEP_HOLD);
  return change("idle", "heartbeat", CLEAR_EXHAUSTION, CLEAR_HOLD, { notBefore: agent.exhaustion.recoveryAt });
}

/** The agent's own word wins: whoever works is not exhausted. */
function reportWorking(agent: AgentCondition, status: WorkingStatus): BeatVerdict {
  if (agent.status === status) return RENEW;
  const forgetBackoff = status === "idle" && (agent.status === "busy" || agent.status === "on_call");
  const exhaustion = agent.exhaustion === null ? KEEP_EXHAUSTION : CLEAR_EXHAUSTION;
  return change(status, "report", exhaustion, CLEAR_HOLD, { forgetBackoff });
}

function reportExhausted(agent: AgentCondition, news: ReportedExhaustion, now: Micros, random: number): BeatVerdict {
  const exhaustion = exhaustionAfter(agent, news, now, random);
  if (agent.status === "exhausted" && exhaustion.kind === "keep") return RENEW;
  return change("exhausted", "report", exhaustion, CLEAR_HOLD);
}

/** What a service asks for. */
export interface StatusRequest {
  readonly status: WorkingStatus | "offline" | { readonly exhausted: ReportedExhaustion };
  /** Milliseconds, 0 to `LONGEST_HOLD_MS`; undefined: the default for what is set. */
  readonly holdMs: number | undefined;
}

/**
 * Judges what a service says of an agent. Undefined: it is so already.
 *
 * @throws Refusal `AGENT_OFFLINE`, `AGENT_EXHAUSTED` where a service may not decide.
 */
export function judgeStatusRequest(
  agent: AgentCondition,
  word: StatusRequest,
  now: Micros,
  random: number,
): StatusChange | undefined {
  if (word.status === "offline") {
    return agent.status === "offline" ? undefined : goOffline(agent, "service");
  }
  if (typeof word.status === "object") {
    const exhaustion = exhaustionAfter(agent, word.status.exhausted, now, random);
    const status = agent.status === "offline" ? "offline" : "exhausted";
    if (exhaustion.kind === "keep") return undefined;
    const hold: HoldChange = { kind: "set", forMs: word.holdMs ?? "until_recovery" };
    return change(status, "service", exhaustion, hold);
  }
  const hold: HoldChange = { kind: "set", forMs: word.holdMs ?? DEFAULT_HOLD_MS };
  if (agent.status === word.status) return undefined;
  if (agent.status === "offline") {
    // `idle` recovers what is exhausted; an agent that nobody hears stays offline all the same.
    if (word.status === "idle" && agent.exhaustion !== null) {
      return change("offline", "service", CLEAR_EXHAUSTION, hold);
    }
    throw new Refusal(
      "AGENT_OFFLINE",
      `The agent is offline, so it cannot become ${word.status}. Its next heartbeat brings it back.`,
    );
  }
  if (agent.status === "exhausted") {
    if (word.status !== "idle") throw exhaustedRefusal(agent.exhaustion, word.status);
    return change("idle", "service", CLEAR_EXHAUSTION, hold);
  }
  return change(word.status, "service", KEEP_EXHAUSTION, hold);
}

function exhaustedRefusal(exhaustion: Exhaustion | null, wanted: AgentStatus): Refusal {
  const recoveryAt = exhaustion === null ? undefined : toRfc3339(exhaustion.recoveryAt);
  const until = recoveryAt === undefined ? "" : ` until ${recoveryAt}`;
  return new Refusal(
    "AGENT_EXHAUSTED",
    `The agent is exhausted${until}, so it cannot become ${wanted}. Wait for its recovery, or set it idle first.`,
    recoveryAt === undefined ? {} : { metadata: { recoveryAt } },
  );
}

/** A lease that ended, a goodbye, a service's word: the exhaustion stays, and with it the hold on it. */
function goOffline(agent: AgentCondition, cause: "lease_expired" | "goodbye" | "service"): StatusChange {
  return change("offline", cause, KEEP_EXHAUSTION, agent.exhaustion === null ? CLEAR_HOLD : KEEP_HOLD);
}

/** Judges the end of a lease. Undefined: the agent is offline already. */
export function judgeLeaseEnd(agent: AgentCondition): StatusChange | undefined {
  return agent.status === "offline" ? undefined : goOffline(agent, "lease_expired");
}

/** Judges a goodbye, which is never held off. Undefined: the agent is offline already. */
export function judgeGoodbye(agent: AgentCondition): StatusChange | undefined {
  return agent.status === "offline" ? undefined : goOffline(agent, "goodbye");
}

/** Judges the time: what is exhausted until an instant that is past recovers. Undefined: nothing is due. */
export function judgeRecovery(agent: AgentCondition, now: Micros): StatusChange | undefined {
  if (agent.exhaustion === null || agent.exhaustion.recoveryAt > now) return undefined;
  const status = agent.status === "exhausted" ? "idle" : agent.status;
  return change(status, "recovery", CLEAR_EXHAUSTION, CLEAR_HOLD, { notBefore: agent.exhaustion.recoveryAt });
}
