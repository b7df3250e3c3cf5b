import { describe, expect, it } from "vitest";
import { offlineBy, type Promises } from "../chaos/allowance.ts";
import { type Case, type Invariant, judge } from "../chaos/checks.ts";
import type { Fault, Stop } from "../chaos/fault-log.ts";
import type { SentMessage, StreamRecord } from "../chaos/ledger.ts";
import type { LoggedTransition } from "../chaos/transition-log.ts";

const PROMISES: Promises = { leaseMs: 3_000, slackMs: 500, claws: 20 };
const END = 100_000;

function transition(revision: number, at: number, from: string | null, to: string, cause: string): LoggedTransition {
  const previousRevision = revision === 1 ? null : BigInt(revision - 1);
  return { revision: BigInt(revision), agentId: "a", from, to, cause, ofNext: false, at, previousRevision, incidentId: null };
}

const CREATED = transition(1, 0, null, "idle", "created");

function message(sequence: number, sentAt: number, ackedAt: number | undefined, report?: string): SentMessage {
  const reports = new Map(report === undefined ? [] : [["a", report]]);
  return { sequence: BigInt(sequence), sentAt, ackedAt, agents: ["a"], reports, leaving: false, refused: new Set() };
}

function stream(order: number, messages: SentMessage[], more: Partial<StreamRecord> = {}): StreamRecord {
  return { order, seat: "claw-1/1", openedAt: 0, endedAt: undefined, messages, lost: [], ...more };
}

/** One agent, `a`, in claw 0; by default it beats once and is idle. */
function run(more: {
  transitions?: LoggedTransition[];
  streams?: StreamRecord[];
  stops?: Stop[];
  faults?: Fault[];
  observed?: string[];
  accidents?: string[];
  row?: { status: string; revision: bigint };
}): Invariant[] {
  const transitions = more.transitions ?? [CREATED];
  const last = transitions.at(-1);
  const row = more.row ?? { status: last?.to ?? "idle", revision: last?.revision ?? 1n };
  const given: Case = {
    observation: { transitions, agents: [{ agentId: "a", ...row }], faults: more.observed ?? [] },
    streams: more.streams ?? [stream(0, [message(1, 10, 20)])],
    log: {
      faults: more.faults ?? [],
      stops: more.stops ?? [],
      lags: [],
      accidents: (more.accidents ?? []).map((what) => ({ at: 0, what })),
    },
    clawOf: new Map([["a", 0]]),
    promises: PROMISES,
    endedAt: END,
  };
  return judge(given).violations.map(({ invariant }) => invariant);
}

function stop(at: number, until?: number, claw = 0): Stop {
  return { claw, how: "killed", at, until };
}

function outage(from: number, until: number): Fault {
  return { kind: "kill-database", what: "", from, until, outage: true, claws: [] };
}

const EXPIRED = transition(2, 9_000, "idle", "offline", "lease_expired");
const BACK = transition(3, 9_500, "offline", "idle", "heartbeat");

describe("the observer of the chaos", () => {
  it("finds no violation in a correct history", () => {
    const streams = [stream(0, [message(1, 10, 20), message(2, 100, 130, "busy"), message(3, 1_000, 1_010)])];
    expect(run({ transitions: [CREATED, transition(2, 110, "idle", "busy", "report")], streams })).toEqual([]);
    const killed = [CREATED, transition(2, 4_200, "idle", "offline", "lease_expired")];
    expect(
      run({ transitions: killed, streams: [stream(0, [message(1, 1_000, 1_010)])], stops: [stop(1_100)] }),
    ).toEqual([]);
  });

  it("finds an agent that went offline while it beat", () => {
    const streams = [stream(0, [message(1, 5_990, 5_995), message(2, 8_000, undefined), message(3, 9_300, 9_510)])];
    expect(run({ transitions: [CREATED, EXPIRED, BACK], streams })).toEqual([
      "an agent that kept beating never went offline",
    ]);
    // A stop of another claw does not explain it, nor a stop from which it had returned.
    const stops = [stop(5_000, undefined, 1), stop(1_000, 2_000)];
    expect(run({ transitions: [CREATED, EXPIRED, BACK], streams, stops })).toContain(
      "an agent that kept beating never went offline",
    );
  });

  it("finds a lease that ended early, also of a stopped agent", () => {
    const streams = [stream(0, [message(1, 8_000, 8_010)])];
    expect(run({ transitions: [CREATED, EXPIRED], streams, stops: [stop(8_020)] })).toEqual(["no lease ended early"]);
  });

  it("finds an agent that stopped and did not go offline, or not in time", () => {
    expect(run({ stops: [stop(1_000)] })).toEqual(["an agent that stopped went offline in time"]);
    const streams = [stream(0, [message(1, 900, 910)])];
    expect(run({ transitions: [CREATED, EXPIRED], streams, stops: [stop(1_000)] })).toEqual([
      "an agent that stopped went offline in time",
    ]);
    // It need not go offline if it returned in time.
    expect(run({ stops: [stop(1_000, 3_000)] })).toEqual([]);
  });

  it("allows the length of an outage and one more lease, and no more", () => {
    const streams = [stream(0, [message(1, 900, 910)])];
    const transitions = [CREATED, EXPIRED];
    const stops = [stop(1_000)];
    expect(run({ transitions, streams, stops, faults: [outage(2_000, 4_000)] })).toEqual([]);
    expect(run({ transitions, streams, stops, faults: [outage(50_000, 60_000)] })).toHaveLength(1);
    expect(offlineBy(1_000, [], stops, PROMISES)).toBe(4_500);
    expect(offlineBy(1_000, [outage(2_000, 4_000)], stops, PROMISES)).toBe(9_500);
    // Overlapping outages count once; a later one counts when the deadline reaches it.
    expect(offlineBy(1_000, [outage(2_000, 4_000), outage(3_000, 5_000)], stops, PROMISES)).toBe(10_500);
    expect(offlineBy(1_000, [outage(2_000, 4_000), outage(9_000, 9_100)], stops, PROMISES)).toBe(12_600);
  });

  it("allows six leases only in a mass silence of its own log", () => {
    const mass = [0, 1, 2, 3, 4].map((claw) => stop(1_000 + claw, undefined, claw));
    expect(offlineBy(1_000, [], mass, PROMISES)).toBe(19_500);
    expect(offlineBy(1_000, [], mass.slice(1), PROMISES)).toBe(4_500);
  });

  it("finds an acknowledged report that was lost, or acknowledged before it was applied", () => {
    const streams = [stream(0, [message(1, 100, 130, "busy")])];
    expect(run({ streams })).toEqual(["no acknowledged report was lost"]);
    const late = [CREATED, transition(2, 180, "idle", "busy", "report")];
    expect(run({ transitions: late, streams })).toContain("no acknowledged report was lost");
    const newer = [stream(0, [message(1, 100, 150, "busy"), message(2, 110, 150, "on_call")])];
    expect(run({ transitions: [CREATED, transition(2, 140, "idle", "on_call", "report")], streams: newer })).toEqual(
      [],
    );
  });

  it("finds a report from a stream that had lost its agent", () => {
    const stuck = stream(0, [message(1, 100, 110), message(2, 1_000, undefined, "busy")]);
    const transitions = [CREATED, transition(2, 5_000, "idle", "busy", "report")];
    const winner = stream(1, [message(1, 2_000, 2_010), message(2, 4_000, 4_010)]);
    const invariant = "no report came from a stream that had lost its agent";
    expect(run({ transitions, streams: [stuck, winner] })).toEqual([invariant]);
    expect(run({ transitions, streams: [stuck, { ...winner, seat: "claw-1/2" }] })).toEqual([invariant]);
    // No session holds it any more: the next beat of any stream claims it.
    expect(run({ transitions, streams: [stuck, { ...winner, endedAt: 4_500 }] })).toEqual([]);
    expect(run({ transitions })).toEqual([invariant]);
  });

  it("finds an agent that was lost without a new holder", () => {
    const invariant = "an agent is taken only by a stream that speaks for it";
    const lost = [{ agentId: "a", at: 5_000 }];
    const former = stream(0, [message(1, 100, 110)], { endedAt: 1_000 });
    const own = stream(1, [message(1, 1_500, 1_510)], { openedAt: 1_500 });
    expect(run({ streams: [former, { ...own, lost }] })).toEqual([invariant]);
    expect(run({ streams: [{ ...former, lost }, own] })).toEqual([]);
    const other = stream(2, [message(1, 2_000, 2_010)], { seat: "claw-1/2", openedAt: 2_000 });
    expect(run({ streams: [former, { ...own, lost }, other] })).toEqual([]);
    expect(run({ streams: [former, own, { ...other, lost }] })).toEqual([]);
    expect(run({ streams: [former, { ...own, endedAt: 1_900 }, { ...other, lost }] })).toEqual([invariant]);
    expect(run({ streams: [former, { ...own, lost }, { ...other, messages: [message(1, 5_100, 5_110)] }] })).toEqual([
      invariant,
    ]);
  });

  it("finds revisions that descend, are used twice or skip the agent's last", () => {
    const invariant = "revisions ascend and none is used twice";
    expect(run({ observed: ["revision 5 was there and is gone"] })).toEqual([invariant]);
    const busy = transition(2, 110, "idle", "busy", "service");
    const idle = transition(3, 120, "busy", "idle", "service");
    expect(run({ transitions: [CREATED, busy, { ...idle, previousRevision: 1n }] })).toEqual([invariant]);
    expect(run({ transitions: [CREATED, busy, { ...idle, at: 100 }] })).toEqual([invariant]);
    expect(run({ row: { status: "busy", revision: 1n } })).toEqual([invariant]);
  });

  it("finds transitions that the table does not allow", () => {
    const invariant = "statuses follow the table";
    expect(run({ transitions: [CREATED, transition(2, 110, "idle", "busy", "recovery")] })).toEqual([invariant]);
    expect(run({ transitions: [CREATED, transition(2, 110, "busy", "idle", "service")] })).toEqual([invariant]);
  });

  it("finds an agent that beats and stays offline, and processes that ended by themselves", () => {
    const streams = [stream(0, [message(1, 900, 910), message(2, 10_000, 10_010)])];
    const transitions = [CREATED, transition(2, 4_000, "idle", "offline", "lease_expired")];
    expect(run({ transitions, streams, stops: [stop(1_000, 9_900)] })).toEqual(["an agent that beats again is back"]);
    expect(run({ accidents: ["replica 1: it ended with 1"] })).toEqual(["nothing ended by itself"]);
  });
});
