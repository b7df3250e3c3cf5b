import { offlineBy, type Promises } from "./allowance.ts";
import { type AgentEvidence, type Beat, gather } from "./evidence.ts";
import type { FaultLog, Stop } from "./fault-log.ts";
import type { Instant, StreamRecord } from "./ledger.ts";
import type { Observation } from "./observer.ts";
import type { LoggedTransition } from "./transition-log.ts";

/** The promises of the service that the observer checks. */
export const INVARIANTS = [
  "an agent that kept beating never went offline",
  "no lease ended early",
  "an agent that stopped went offline in time",
  "no acknowledged report was lost",
  "no report came from a stream that had lost its agent",
  "an agent is taken only by a stream that speaks for it",
  "revisions ascend and none is used twice",
  "statuses follow the table",
  "an agent that beats again is back",
  "nothing ended by itself",
] as const;

export type Invariant = (typeof INVARIANTS)[number];

export interface Violation {
  readonly invariant: Invariant;
  readonly at: Instant;
  readonly agentId: string | undefined;
  readonly what: string;
}

export interface Verdict {
  readonly violations: readonly Violation[];
  /**
   * The number of stopped agents that had to expire, and the milliseconds from the end of each lease to its
   * expiry.
   */
  readonly lateness: readonly number[];
  readonly reports: number;
  /**
   * Leases that ended while the claw's path was stalled and the service was hindered, too, or the test was
   * stalled.
   */
  readonly excused: readonly string[];
}

export interface Case {
  readonly observation: Observation;
  readonly streams: readonly StreamRecord[];
  readonly log: Pick<FaultLog, "faults" | "stops" | "lags" | "accidents">;
  /** The claw of an agent, by index. */
  readonly clawOf: ReadonlyMap<string, number>;
  readonly promises: Promises;
  readonly endedAt: Instant;
}

/** The test's clock has whole milliseconds, and reads them before and after what it times. */
const CLOCK_MS = 5;
/** A test that was stalled for so much of a lease cannot claim that its agents kept beating. */
const LAG_SHARE = 1 / 3;
/** A leaving claw beats until its goodbye is acknowledged, for at most so long. */
const GOODBYE_MS = 2_000;

/** The causes that may change an agent from one status to another: the observer's own copy of the table. */
const TABLE: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  idle: {
    on_call: ["report", "service"],
    busy: ["report", "service"],
    exhausted: ["report", "service"],
    offline: ["lease_expired", "goodbye", "service"],
  },
  on_call: {
    idle: ["report", "service"],
    busy: ["report", "service"],
    exhausted: ["report", "service"],
    offline: ["lease_expired", "goodbye", "service"],
  },
  busy: {
    idle: ["report", "service"],
    on_call: ["report", "service"],
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
    offline: ["service", "recovery"],
  },
};

/** Judges a run. Pure: the same evidence gets the same verdict. */
export function judge(run: Case): Verdict {
  const evidence = gather(run.streams, run.observation.transitions, run.clawOf.keys());
  const violations: Violation[] = [...revisions(run), ...table(run.observation.transitions), ...losses(run.streams)];
  const excused: string[] = [];
  const lateness: number[] = [];
  let reports = 0;
  for (const { at, what } of run.log.accidents) {
    violations.push({ invariant: "nothing ended by itself", at, agentId: undefined, what });
  }
  for (const [agentId, agent] of evidence) {
    const stops = run.log.stops.filter(({ claw }) => claw === run.clawOf.get(agentId));
    const offline = expiries(agentId, agent, stops, run);
    violations.push(...offline.violations);
    excused.push(...offline.excused);
    violations.push(...early(agentId, agent, run));
    const stopped = inTime(agentId, agent, stops, run);
    violations.push(...stopped.violations);
    lateness.push(...stopped.lateness);
    const kept = acknowledged(agentId, agent);
    violations.push(...kept.violations);
    reports += kept.reports;
    violations.push(...fenced(agentId, agent));
    violations.push(...back(agentId, agent, stops, run));
  }
  violations.sort((one, other) => one.at - other.at);
  return { violations, lateness, reports, excused };
}

function revisions({ observation, endedAt }: Case): Violation[] {
  const violations: Violation[] = [];
  const fail = (at: Instant, agentId: string | undefined, what: string) =>
    violations.push({ invariant: "revisions ascend and none is used twice", at, agentId, what });
  for (const what of observation.faults) fail(endedAt, undefined, what);
  const last = new Map<string, LoggedTransition>();
  let before: LoggedTransition | undefined;
  for (const transition of observation.transitions) {
    const { revision, agentId, at, previousRevision } = transition;
    if (before !== undefined && revision <= before.revision) fail(at, agentId, `${revision} after ${before.revision}`);
    if (before !== undefined && at < before.at) fail(at, agentId, `${revision} is from before ${before.revision}`);
    const own = last.get(agentId);
    if (own !== undefined && previousRevision !== own.revision) {
      fail(at, agentId, `${revision} follows ${previousRevision}, but the agent's last was ${own.revision}`);
    }
    last.set(agentId, transition);
    before = transition;
  }
  for (const { agentId, status, revision } of observation.agents) {
    const own = last.get(agentId);
    if (own !== undefined && (own.revision !== revision || own.to !== status)) {
      fail(endedAt, agentId, `its row says ${status} at ${revision}, the log ${own.to} at ${own.revision}`);
    }
  }
  return violations;
}

function table(transitions: readonly LoggedTransition[]): Violation[] {
  const violations: Violation[] = [];
  const status = new Map<string, string>();
  for (const { agentId, from, to, cause, at, revision } of transitions) {
    const fail = (what: string) =>
      violations.push({ invariant: "statuses follow the table", at, agentId, what: `${what} (revision ${revision})` });
    const held = status.get(agentId);
    if (held !== undefined && from !== held) fail(`it was ${held}, and went from ${from} to ${to}`);
    if (to !== null) status.set(agentId, to);
    if (cause === "created" || cause === "deleted" || cause === "moved") continue;
    if (!TABLE[from ?? ""]?.[to ?? ""]?.includes(cause)) fail(`from ${from} to ${to} by ${cause}`);
  }
  return violations;
}

/** A lease may only expire between a stop and the first acknowledged beat after it. */
function expiries(agentId: string, agent: AgentEvidence, stops: readonly Stop[], { log, promises, clawOf }: Case) {
  const violations: Violation[] = [];
  const excused: string[] = [];
  for (const { to, from, cause, at } of agent.transitions) {
    if (to !== "offline" || from === "offline") continue;
    const allowed = stops.some((stop) => {
      if (cause === "goodbye" && stop.how !== "left") return false;
      const heard = stop.until === undefined ? undefined : agent.firstAckAfter(stop.until);
      return stop.at <= at + CLOCK_MS && (heard === undefined || at <= heard + CLOCK_MS);
    });
    if (allowed) continue;
    const since = at - promises.leaseMs;
    const overlaps = (span: { from: Instant; until: Instant | undefined }, from: Instant) =>
      span.from <= at && (span.until ?? at) >= from;
    const lagMs = log.lags
      .filter((span) => overlaps(span, since))
      .reduce((sum, { from, until }) => sum + until - from, 0);
    const claw = clawOf.get(agentId) ?? -1;
    const near = log.faults.filter((fault) => overlaps(fault, since - promises.leaseMs));
    // Its own path failed, and so did the alternative: no promise covers a third path within one lease.
    const stalled = near.some(({ kind, claws }) => kind === "stall" && claws.includes(claw));
    if (lagMs > LAG_SHARE * promises.leaseMs || (stalled && near.some(({ outage }) => outage))) {
      excused.push(`${agentId} at ${Math.round(at)}`);
      continue;
    }
    const silence = agent.lastSentBefore(at);
    const words =
      silence === undefined ? "it had never beaten" : `its last beat went out ${Math.round(at - silence)} ms before`;
    violations.push({
      invariant: "an agent that kept beating never went offline",
      at,
      agentId,
      what: `claw ${claw}: ${from} to offline by ${cause}; ${words}`,
    });
  }
  return { violations, excused };
}

/** Every acknowledged beat grants a lease: none of them may still run when the agent expires. */
function early(agentId: string, agent: AgentEvidence, { promises }: Case): Violation[] {
  const violations: Violation[] = [];
  for (const { cause, at } of agent.transitions) {
    if (cause !== "lease_expired") continue;
    const running = agent.beats.find(
      ({ message: { ackedAt, sentAt, leaving } }) =>
        !leaving && ackedAt !== undefined && ackedAt <= at && sentAt + promises.leaseMs > at + CLOCK_MS,
    );
    if (running === undefined) continue;
    const ageMs = Math.round(at - running.message.sentAt);
    violations.push({
      invariant: "no lease ended early",
      at,
      agentId,
      what: `expired ${ageMs} ms after a beat that was acknowledged; a lease is ${promises.leaseMs} ms`,
    });
  }
  return violations;
}

function inTime(agentId: string, agent: AgentEvidence, stops: readonly Stop[], run: Case) {
  const violations: Violation[] = [];
  const lateness: number[] = [];
  const { log, promises, endedAt } = run;
  for (const stop of stops) {
    const silentFrom = stop.at + (stop.how === "left" ? GOODBYE_MS : 0);
    const due = offlineBy(silentFrom, log.faults, log.stops, promises);
    const offline = agent.transitions.find(({ to, at }) => to === "offline" && at >= stop.at - promises.leaseMs);
    if (offline !== undefined && offline.cause === "lease_expired") {
      const lastBeat = agent.lastSentBefore(stop.at) ?? stop.at;
      if (offline.at <= (stop.until ?? endedAt)) lateness.push(offline.at - lastBeat - promises.leaseMs);
    }
    // It returned before it had to expire, or the test ended.
    const awayUntil = stop.until ?? endedAt;
    if (due > awayUntil || agent.transitions.length === 0) continue;
    if (agent.statusAt(due) === "offline") continue;
    const found = agent.transitions.find(({ to, at }) => to === "offline" && at > due);
    violations.push({
      invariant: "an agent that stopped went offline in time",
      at: due,
      agentId,
      what: `claw ${stop.claw} was ${stop.how} ${Math.round(due - stop.at)} ms before; ${
        found === undefined ? "it never was" : `${Math.round(found.at - due)} ms late`
      }`,
    });
  }
  return { violations, lateness };
}

/** An acknowledged status applied at some instant between its sending and its acknowledgement. */
function acknowledged(agentId: string, agent: AgentEvidence) {
  const violations: Violation[] = [];
  let reports = 0;
  const { beats } = agent;
  for (const { report, stream, message } of beats) {
    const { ackedAt, sentAt, sequence } = message;
    if (report === undefined || ackedAt === undefined) continue;
    reports += 1;
    if (agent.was(report, sentAt - CLOCK_MS, ackedAt + CLOCK_MS)) continue;
    // The newest pending report counts, so an older one may never apply.
    const replaced = beats.some(
      (other) =>
        other.stream === stream &&
        other.report !== undefined &&
        other.message.sentAt <= ackedAt &&
        other.message.sequence > sequence,
    );
    if (replaced) continue;
    violations.push({
      invariant: "no acknowledged report was lost",
      at: ackedAt,
      agentId,
      what: `${report}, message ${sequence} of stream ${stream.order} (${stream.seat}), was acknowledged ${ackedAt - sentAt} ms after its sending, and the log has ${agent.statusAt(ackedAt)}`,
    });
  }
  return { violations, reports };
}

/** Each report in the log was on its way at that time, on a stream that had not lost the agent. */
function fenced(agentId: string, agent: AgentEvidence): Violation[] {
  const violations: Violation[] = [];
  for (const { cause, to, at, revision } of agent.transitions) {
    if (cause !== "report") continue;
    const sources = agent.beats.filter(
      ({ report, message }) =>
        report === to && message.sentAt <= at + CLOCK_MS && (message.ackedAt ?? at) >= at - CLOCK_MS,
    );
    if (sources.some((source) => lostTo(source, agent.beats, at) === undefined)) continue;
    const [source] = sources;
    const winner = source === undefined ? undefined : lostTo(source, agent.beats, at);
    violations.push({
      invariant: "no report came from a stream that had lost its agent",
      at,
      agentId,
      what:
        source === undefined || winner === undefined
          ? `${to} at revision ${revision}, which no stream was reporting`
          : `${to} at revision ${revision} from stream ${source.stream.order} (${source.stream.seat}), though stream ${winner.order} (${winner.seat}) had the agent`,
    });
  }
  return violations;
}

/** The stream that had taken the agent from the beat's stream, and still had it at that time. */
function lostTo(beat: Beat, beats: readonly Beat[], at: Instant): StreamRecord | undefined {
  const { stream } = beat;
  const claimedAt = (which: StreamRecord): Instant | undefined =>
    beats.find((other) => other.stream === which && other.message.ackedAt !== undefined)?.message.ackedAt;
  const own = claimedAt(stream);
  for (const { stream: other } of beats) {
    if (other.order <= stream.order || (other.endedAt ?? at) < at) continue;
    const theirs = claimedAt(other);
    if (theirs === undefined || theirs > at - CLOCK_MS) continue;
    // Between processes the later claim wins, and only acknowledgements show the time of a claim.
    if (other.seat === stream.seat || (own !== undefined && own < theirs)) return other;
  }
  return undefined;
}

/** A superseded stream has a successor: a stream of another process, or a later one of its own. */
function losses(streams: readonly StreamRecord[]): Violation[] {
  const violations: Violation[] = [];
  for (const { seat, order, openedAt, lost } of streams) {
    if (lost.length === 0) continue;
    const rivals = streams.filter((other) =>
      other.seat === seat
        ? other.order > order
        : clawOfSeat(other.seat) === clawOfSeat(seat) && (other.endedAt ?? openedAt) >= openedAt,
    );
    for (const { agentId, at } of lost) {
      const speaks = ({ messages }: StreamRecord) =>
        messages.some(({ sentAt, agents }) => sentAt <= at && agents.includes(agentId));
      if (rivals.some(speaks)) continue;
      const what = `${seat} was told, on its stream ${order}, that another one holds it; there was none`;
      violations.push({ invariant: "an agent is taken only by a stream that speaks for it", at, agentId, what });
    }
  }
  return violations;
}

function clawOfSeat(seat: string): string {
  return seat.slice(0, seat.indexOf("/"));
}

function back(
  agentId: string,
  agent: AgentEvidence,
  stops: readonly Stop[],
  { observation, endedAt }: Case,
): Violation[] {
  if (stops.some(({ until }) => until === undefined)) return [];
  const last = agent.transitions.at(-1);
  const row = observation.agents.find((one) => one.agentId === agentId);
  if (row !== undefined && row.status !== "offline") return [];
  return [
    {
      invariant: "an agent that beats again is back",
      at: endedAt,
      agentId,
      what: `it beats and is offline since ${last === undefined ? "ever" : `revision ${last.revision} by ${last.cause}`}`,
    },
  ];
}
