import type {
  AgentStatus,
  ReportedExhaustion,
  TransitionCause,
  Unknown,
  WorkingStatus,
} from "../../common/contract/enum-names.ts";
import { type Micros, toRfc3339 } from "../../common/contract/time.ts";
import type { AgentCondition, Exhaustion, Hold } from "./agent.ts";
import { Refusal } from "./errors.ts";
import { CLEAR_EXHAUSTION, type ExhaustionChange, exhaustionAfter, KEEP_EXHAUSTION } from "./exhaustion.ts";
import type { WakeReply } from "./wake.ts";

/**
 * The whole status machine: the causes that may take an agent from one status to another. The functions below decide; a
 * test checks the log against this table. From a status to itself there is a transition only if an exhaustion changes.
 * `WAKE_STATUS_TABLE` has the further causes for agents with wakes.
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
    // The agent stays offline while its exhaustion changes: a service sets or clears it, or it recovers.
    offline: ["service", "recovery"],
  },
};

/** The hold of a service's change if the request names none. */
export const DEFAULT_HOLD_MS = 60_000;
export const LONGEST_HOLD_MS = 3_600_000;

/** The hold stays, ends, or begins: for some time, or until the exhaustion recovers. */
export type HoldChange =
  | { readonly kind: "keep" }
  | { readonly kind: "clear" }
  | {
      readonly kind: "set";
      readonly forMs: number | "until_recovery";
      /** For a claim: the status that the agent returns to, if it does not confirm the claim during the hold. */
      readonly lapsesTo?: WorkingStatus;
    };

/** A transition to commit. */
export interface StatusChange {
  readonly kind: "change";
  readonly status: AgentStatus;
  readonly cause: TransitionCause;
  readonly exhaustion: ExhaustionChange;
  readonly hold: HoldChange;
  /** Whether the server's backoff starts again, because the agent finished some work. */
  readonly forgetBackoff: boolean;
  /** The change must not commit before this instant of the database's clock. */
  readonly notBefore: Micros | null;
}

export type BeatVerdict =
  /** Only the lease changes. */
  | { readonly kind: "renew" }
  /** The report agrees with the service's change: the hold ends. This is not a transition. */
  | { readonly kind: "confirm" }
  /** The agent knows of a service's claim, which does not lapse any more. The hold stays. This is not a transition. */
  | { readonly kind: "known" }
  /**
   * The report is older than the service's change. The lease is renewed, or the agent comes back online, but not with
   * the reported status.
   */
  | { readonly kind: "held_off"; readonly change: StatusChange | null }
  | StatusChange;

/** The content of a beat that is not a goodbye. */
export interface Beat {
  /** Undefined: the agent only renews its lease. */
  readonly report: WorkingStatus | { readonly exhausted: ReportedExhaustion } | undefined;
  /** The newest revision of itself that the agent knows of. */
  readonly knownRevision: bigint | undefined;
  /** At least one; undefined: the beat replies to no wake. */
  readonly replies?: readonly WakeReply[] | undefined;
  /** A goodbye that replies to wakes as well. One without replies is `"leaving"`. */
  readonly leaving?: true;
}

const KEEP_HOLD: HoldChange = { kind: "keep" };
const CLEAR_HOLD: HoldChange = { kind: "clear" };
const RENEW: BeatVerdict = { kind: "renew" };
const CONFIRM: BeatVerdict = { kind: "confirm" };
const KNOWN: BeatVerdict = { kind: "known" };

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

/**
 * Judges a heartbeat. In a status of a newer version, a report changes nothing: this version does not know what follows.
 *
 * @param now the database's clock
 * @param random uniform in [0, 1)
 */
export function judgeBeat(agent: AgentCondition, beat: Beat, now: Micros, random: number): BeatVerdict {
  const claim = unconfirmedClaim(agent);
  if (beat.report === undefined) {
    const knowsClaim = claim !== null && beat.knownRevision !== undefined && beat.knownRevision >= claim.revision;
    return comeBack(agent, now) ?? (knowsClaim ? KNOWN : RENEW);
  }
  const hold = agent.hold !== null && agent.hold.until > now ? agent.hold : null;
  const knows = hold === null || (beat.knownRevision !== undefined && beat.knownRevision >= hold.revision);
  const agrees = agreesWith(agent, beat.report);
  if ((!knows && !agrees) || agent.status === "unknown") return { kind: "held_off", change: comeBack(agent, now) };
  const verdict =
    typeof beat.report === "string"
      ? reportWorking(agent, beat.report)
      : reportExhausted(agent, beat.report.exhausted, now, random);
  if (verdict.kind !== "renew") return verdict;
  // A claim that has not lapsed yet can be confirmed, even if its hold is over: an outage of the service delayed both.
  return (hold !== null || claim !== null) && agrees ? CONFIRM : RENEW;
}

/** The hold of a service's claim (ON_CALL or BUSY) that the agent has not confirmed; null: there is none. */
function unconfirmedClaim(agent: AgentCondition): (Hold & { readonly lapsesTo: WorkingStatus }) | null {
  const { hold, lapsesTo } = agent;
  return hold === null || lapsesTo === null || lapsesTo === undefined ? null : { ...hold, lapsesTo };
}

/** Whether a report agrees with a service's change that the agent does not know of. */
function agreesWith(
  agent: AgentCondition,
  report: WorkingStatus | { readonly exhausted: ReportedExhaustion },
): boolean {
  // With the same reason: an agent that repeats its rate limit does not know that a service reported billing. This also
  // holds if a service set the exhaustion while the agent was offline.
  if (typeof report === "object") return agent.exhaustion?.reason === report.exhausted.reason;
  // A service can only clear the exhaustion of an offline agent. Each working status agrees with that.
  return report === agent.status || (agent.status === "offline" && agent.exhaustion === null);
}

/** A beat brings an offline agent back: to `exhausted` or `idle`. Null: the agent is not offline. */
function comeBack(agent: AgentCondition, now: Micros): StatusChange | null {
  if (agent.status !== "offline") return null;
  if (agent.exhaustion === null) return change("idle", "heartbeat", KEEP_EXHAUSTION, KEEP_HOLD);
  if (agent.exhaustion.recoveryAt > now) return change("exhausted", "heartbeat", KEEP_EXHAUSTION, KEEP_HOLD);
  return change("idle", "heartbeat", CLEAR_EXHAUSTION, CLEAR_HOLD, { notBefore: agent.exhaustion.recoveryAt });
}

/** The agent's own report takes precedence: an agent that works is not exhausted. */
function reportWorking(agent: AgentCondition, status: WorkingStatus): BeatVerdict {
  if (agent.status === status) return RENEW;
  const forgetBackoff = status === "idle" && (agent.status === "busy" || agent.status === "on_call");
  const exhaustion = agent.exhaustion === null ? KEEP_EXHAUSTION : CLEAR_EXHAUSTION;
  return change(status, "report", exhaustion, CLEAR_HOLD, { forgetBackoff });
}

function reportExhausted(agent: AgentCondition, report: ReportedExhaustion, now: Micros, random: number): BeatVerdict {
  const exhaustion = exhaustionAfter(agent, report, now, random);
  if (agent.status === "exhausted" && exhaustion.kind === "keep") return RENEW;
  return change("exhausted", "report", exhaustion, CLEAR_HOLD);
}

/** The status that a service requests for an agent. */
export interface StatusRequest {
  readonly status: WorkingStatus | "offline" | { readonly exhausted: ReportedExhaustion };
  /** In milliseconds, 0 to `LONGEST_HOLD_MS`. Undefined: `DEFAULT_HOLD_MS`, or until the recovery of an exhaustion. */
  readonly holdMs: number | undefined;
}

/** Whether a service claims the agent for work with this status. */
export function isClaim(status: StatusRequest["status"]): status is "on_call" | "busy" {
  return status === "on_call" || status === "busy";
}

/**
 * Judges a service's request. Undefined: the agent has the requested status already.
 *
 * @param agent `suspectSince` as of now: it changes without a transition
 * @param now the database's clock
 * @param random uniform in [0, 1)
 * @throws Refusal `AGENT_OFFLINE`, `AGENT_EXHAUSTED` if a service may not set this status now
 */
export function judgeStatusRequest(
  agent: AgentCondition & { readonly suspectSince?: Micros | null },
  wanted: StatusRequest,
  now: Micros,
  random: number,
): StatusChange | undefined {
  if (wanted.status === "offline") {
    return agent.status === "offline" ? undefined : goOffline(agent, "service");
  }
  if (agent.status === "unknown") throw unknownStatusRefusal();
  if (typeof wanted.status === "object") {
    const exhaustion = exhaustionAfter(agent, wanted.status.exhausted, now, random);
    const status = agent.status === "offline" ? "offline" : "exhausted";
    if (exhaustion.kind === "keep") return undefined;
    const hold: HoldChange = { kind: "set", forMs: wanted.holdMs ?? "until_recovery" };
    return change(status, "service", exhaustion, hold);
  }
  if (isClaim(wanted.status) && typeof agent.suspectSince === "number")
    throw suspectRefusal(agent.suspectSince, wanted.status);
  const hold = holdOf(agent, wanted.status, wanted.holdMs ?? DEFAULT_HOLD_MS);
  if (agent.status === wanted.status) return undefined;
  if (agent.status === "offline") {
    // `idle` clears the exhaustion. The agent stays offline, because it sends no heartbeats.
    if (wanted.status === "idle" && agent.exhaustion !== null) {
      return change("offline", "service", CLEAR_EXHAUSTION, hold);
    }
    throw new Refusal(
      "AGENT_OFFLINE",
      `The agent is offline, so it cannot become ${wanted.status}. Its next heartbeat brings it back.`,
    );
  }
  if (agent.status === "exhausted") {
    if (wanted.status !== "idle") throw exhaustedRefusal(agent.exhaustion, wanted.status);
    return change("idle", "service", CLEAR_EXHAUSTION, hold);
  }
  return change(wanted.status, "service", KEEP_EXHAUSTION, hold);
}

/**
 * The hold of a working status. A claim lapses to the last status that the agent reported or that was confirmed, so not to
 * another claim that the agent does not know of either.
 */
function holdOf(agent: AgentCondition, status: WorkingStatus, forMs: number): HoldChange {
  const lapsesTo = agent.lapsesTo ?? agent.status;
  const lapses = forMs > 0 && isClaim(status) && lapsesTo !== status && isWorking(lapsesTo);
  return lapses ? { kind: "set", forMs, lapsesTo } : { kind: "set", forMs };
}

function isWorking(status: AgentStatus | Unknown): status is WorkingStatus {
  return status === "idle" || status === "on_call" || status === "busy";
}

function unknownStatusRefusal(): Refusal {
  const message =
    "The agent has a status of a newer version of the service, which this replica does not know. Try again: another replica may know it.";
  return new Refusal("DATABASE_UNAVAILABLE", message, { retryAfterMs: 1_000 });
}

/** The lease of the agent is over, so it is probably offline. */
function suspectRefusal(since: Micros, wanted: AgentStatus): Refusal {
  const suspectSince = toRfc3339(since);
  return new Refusal(
    "AGENT_OFFLINE",
    `The agent is suspect since ${suspectSince}: its lease is over, and the brake delays its expiry. It cannot become ${wanted} before its next heartbeat.`,
    { metadata: { suspectSince } },
  );
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

/** An agent that goes offline keeps its exhaustion, and the hold on it. */
function goOffline(agent: AgentCondition, cause: "lease_expired" | "goodbye" | "service"): StatusChange {
  return change("offline", cause, KEEP_EXHAUSTION, agent.exhaustion === null ? CLEAR_HOLD : KEEP_HOLD);
}

/** Judges an expired lease. Undefined: the agent is offline already. */
export function judgeLeaseEnd(agent: AgentCondition): StatusChange | undefined {
  return agent.status === "offline" ? undefined : goOffline(agent, "lease_expired");
}

/** Judges a goodbye, which a hold never delays. Undefined: the agent is offline already. */
export function judgeGoodbye(agent: AgentCondition): StatusChange | undefined {
  return agent.status === "offline" ? undefined : goOffline(agent, "goodbye");
}

/**
 * Judges the end of the hold of a claim that the agent has not confirmed: the agent returns to the status before the claim.
 * Undefined: there is no such claim, or its hold is not over.
 *
 * @param now the database's clock
 */
export function judgeClaimLapse(agent: AgentCondition, now: Micros): StatusChange | undefined {
  const claim = unconfirmedClaim(agent);
  if (claim === null || claim.until > now) return undefined;
  return change(claim.lapsesTo, "service", KEEP_EXHAUSTION, CLEAR_HOLD, { notBefore: claim.until });
}

/**
 * Judges a recovery. Undefined: no recovery is due.
 *
 * @param now the database's clock
 */
export function judgeRecovery(agent: AgentCondition, now: Micros): StatusChange | undefined {
  if (agent.exhaustion === null || agent.exhaustion.recoveryAt > now || agent.status === "unknown") return undefined;
  const status = agent.status === "exhausted" ? "idle" : agent.status;
  return change(status, "recovery", CLEAR_EXHAUSTION, CLEAR_HOLD, { notBefore: agent.exhaustion.recoveryAt });
}
