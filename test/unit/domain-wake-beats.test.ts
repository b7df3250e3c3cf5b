import { describe, expect, it } from "vitest";
import type { Agent } from "../../src/domain/agent.ts";
import type { Beat } from "../../src/domain/status-machine.ts";
import { judgeRecovery } from "../../src/domain/status-machine.ts";
import type { OpenWake, UndoneClaim, Wake, WakeReply } from "../../src/domain/wake.ts";
import { judgeWakeBeat, type WakeBeatVerdict } from "../../src/domain/wake-beats.ts";
import { afterLeaseEnd, afterMove, afterServiceChange, recoveryWithWake } from "../../src/domain/wake-events.ts";
import { NEW_AGENT } from "../support/apply-change.ts";

const NOW = 1_790_000_000_000_000;
const OFFER = 100n;
const ACCEPTANCE = 110n;
const SECOND = 1_000_000;

const OFFERED: OpenWake = {
  wakeId: "slot-1",
  state: "offered",
  claim: "busy",
  ifUnavailable: "refuse",
  offers: 1,
  maxOffers: 3,
  expiresAt: NOW + 60 * SECOND,
  answerBy: NOW + 30 * SECOND,
  offerRevision: OFFER,
  acceptedAt: null,
  acceptedRevision: null,
  acceptedBy: null,
  isCancelRequested: false,
  abandonAt: null,
};
const ACCEPTED: OpenWake = {
  ...OFFERED,
  state: "accepted",
  answerBy: null,
  acceptedAt: NOW - 10 * SECOND,
  acceptedRevision: ACCEPTANCE,
  acceptedBy: "process-1",
};

function agentWith(open: OpenWake | null, more: Partial<Agent> = {}, undone: UndoneClaim | null = null): Agent {
  return {
    ...NEW_AGENT,
    id: 1n,
    userId: 2n,
    agentId: "bob-1",
    clawIdentifier: "claw-1",
    createdAt: 0,
    statusChangedAt: 0,
    revision: 120n,
    epoch: 3n,
    held: true,
    lastHeartbeat: NOW,
    leaseExpiresAt: NOW + 30 * SECOND,
    replicaId: 1,
    suspectSince: null,
    status: open?.claim ?? "idle",
    wakes: open === null && undone === null ? null : { open, queued: 0, undone, pause: null },
    ...more,
  };
}

const reply = (type: WakeReply["type"], more: Partial<WakeReply> = {}): WakeReply => ({
  wakeId: "slot-1",
  offerRevision: OFFER,
  type,
  reason: "unsuitable",
  outcome: "succeeded",
  note: "",
  ...more,
});

function judge(
  agent: Agent,
  beat: Partial<Beat> | "leaving",
  { now = NOW, instanceId = "process-1" as string | null, known = [] as readonly Wake[] } = {},
): WakeBeatVerdict {
  const whole = beat === "leaving" ? beat : { report: undefined, knownRevision: undefined, ...beat };
  return judgeWakeBeat(
    agent,
    whole,
    new Map(known.map((wake) => [wake.wakeId, wake])),
    { instanceId: instanceId ?? undefined },
    now,
    0.5,
  );
}

/** The new state of the wake and its reason; the new status; what the agent is told of its report. */
function outcome({ status, wakes }: WakeBeatVerdict) {
  const [write] = wakes;
  const change = status.kind === "held_off" ? status.change : status;
  return {
    wake: write === undefined ? undefined : `${write.state} ${write.reason ?? ""}`.trim(),
    report: status.kind,
    status: change?.kind === "change" ? change.status : undefined,
  };
}

describe("a report during an offer", () => {
  const offered = agentWith(OFFERED);

  it.each([undefined, 99n, 100n, 500n])("of idle is held off, whatever it knows: %s", (knownRevision) => {
    expect(outcome(judge(offered, { report: "idle", knownRevision }))).toEqual({
      wake: undefined,
      report: "held_off",
      status: undefined,
    });
  });

  it("of the claim that knows of it renews the lease, and never accepts", () => {
    expect(outcome(judge(offered, { report: "busy", knownRevision: OFFER }))).toEqual({
      wake: undefined,
      report: "renew",
      status: undefined,
    });
  });

  it("of another working status that knows the claim is outdated", () => {
    expect(outcome(judge(offered, { report: "on_call", knownRevision: OFFER }))).toMatchObject({
      wake: undefined,
      report: "held_off",
    });
  });

  it.each([
    undefined,
    99n,
  ])("of busy without knowing the claim declines: the agent works already (%s)", (knownRevision) => {
    expect(outcome(judge(offered, { report: "busy", knownRevision }))).toMatchObject({ wake: "declined busy" });
  });

  it("of on_call without knowing the claim declines, with the reported status", () => {
    expect(outcome(judge(offered, { report: "on_call" }))).toMatchObject({
      wake: "declined on_call",
      status: "on_call",
    });
  });

  it.each([undefined, 500n])("of exhausted declines, whatever it knows: %s", (knownRevision) => {
    const report = { exhausted: { reason: "rate_limit" } } as const;
    expect(outcome(judge(offered, { report, knownRevision }))).toMatchObject({
      wake: "declined exhausted",
      status: "exhausted",
    });
  });

  it("that is a goodbye lapses", () => {
    expect(outcome(judge(offered, "leaving"))).toMatchObject({ wake: "lapsed leaving", status: "offline" });
  });

  it("without a status changes nothing", () => {
    expect(outcome(judge(offered, {}))).toMatchObject({ wake: undefined, report: "renew" });
  });

  it.each(["idle", "busy", "on_call"] as const)("of %s is judged by a service's hold first", (report) => {
    const held = agentWith(OFFERED, { hold: { revision: 90n, until: NOW + SECOND } });
    expect(outcome(judge(held, { report, knownRevision: 89n }))).toMatchObject({ wake: undefined, report: "held_off" });
  });
});

describe("a reply to an offer", () => {
  const offered = agentWith(OFFERED);

  it.each(["accept", "working"] as const)("%s accepts, and stores the process", (type) => {
    const verdict = judge(offered, { replies: [reply(type)] });
    expect(verdict.wakes).toMatchObject([{ state: "accepted", acceptedBy: "process-1", inTime: true }]);
    expect(verdict.results).toEqual([{ wakeId: "slot-1", state: "accepted", refusal: null }]);
    expect(verdict.status).toEqual({ kind: "renew" });
  });

  it("ACCEPT with idle in the same beat accepts, and the report is held off", () => {
    expect(outcome(judge(offered, { report: "idle", knownRevision: 500n, replies: [reply("accept")] }))).toEqual({
      wake: "accepted",
      report: "held_off",
      status: undefined,
    });
  });

  it("ACCEPT and FINISHED in one beat are one change", () => {
    const verdict = judge(offered, { replies: [reply("accept"), reply("finished", { note: "done" })] });
    expect(verdict.wakes).toMatchObject([
      { from: { state: "offered" }, state: "finished", acceptedBy: "process-1", outcome: "succeeded", note: "done" },
    ]);
    expect(verdict.results.map(({ state }) => state)).toEqual(["accepted", "finished"]);
    expect(outcome(verdict)).toMatchObject({ status: "idle" });
  });

  it("DECLINE ends it with its reason, and the agent is idle", () => {
    const verdict = judge(offered, { replies: [reply("decline", { reason: "exhausted", note: "no quota" })] });
    expect(outcome(verdict)).toMatchObject({ wake: "declined exhausted", status: "idle" });
    expect(verdict.wakes[0]?.note).toBe("no quota");
  });

  it("DECLINE with a status gives the status of the same beat", () => {
    const verdict = judge(offered, { report: "on_call", replies: [reply("decline", { reason: "on_call" })] });
    expect(outcome(verdict)).toMatchObject({ wake: "declined on_call", status: "on_call" });
  });

  it("with another offer_revision is outdated", () => {
    for (const type of ["accept", "working", "decline", "finished"] as const) {
      const verdict = judge(offered, { replies: [reply(type, { offerRevision: 99n })] });
      expect(verdict.results).toMatchObject([{ state: "offered", refusal: { reason: "OFFER_OUTDATED" } }]);
      expect(verdict.wakes).toEqual([]);
    }
  });

  it("ACCEPT at expires_at comes too late: the wake expires, and the agent is idle", () => {
    const verdict = judge(offered, { replies: [reply("accept")] }, { now: OFFERED.expiresAt });
    expect(verdict.results).toMatchObject([
      { state: "expired", refusal: { reason: "WAKE_ENDED", metadata: { state: "EXPIRED" } } },
    ]);
    expect(outcome(verdict)).toMatchObject({ wake: "expired no_answer", status: "idle" });
  });

  it("ACCEPT after answer_by accepts while the wake is still offered", () => {
    const verdict = judge(offered, { replies: [reply("accept")] }, { now: NOW + 31 * SECOND });
    expect(outcome(verdict)).toMatchObject({ wake: "accepted" });
  });

  it("ACCEPT on a stream that takes no wakes is outdated", () => {
    const verdict = judge(offered, { replies: [reply("accept")] }, { instanceId: null });
    expect(verdict.results).toMatchObject([{ refusal: { reason: "OFFER_OUTDATED" } }]);
  });

  it("for an unknown wake is not found", () => {
    const verdict = judge(offered, { replies: [reply("accept", { wakeId: "slot-9" })] });
    expect(verdict.results).toMatchObject([{ wakeId: "slot-9", state: null, refusal: { reason: "WAKE_NOT_FOUND" } }]);
  });
});

describe("a reply to an accepted wake", () => {
  const accepted = agentWith(ACCEPTED);

  it.each(["accept", "working"] as const)("%s of the same process changes nothing", (type) => {
    const verdict = judge(accepted, { replies: [reply(type)] });
    expect(verdict).toMatchObject({ wakes: [], results: [{ state: "accepted", refusal: null }] });
  });

  it.each(["accept", "working"] as const)("%s of another process gets WAKE_ENDED", (type) => {
    const verdict = judge(accepted, { replies: [reply(type)] }, { instanceId: "process-2" });
    expect(verdict).toMatchObject({ wakes: [], results: [{ state: "accepted", refusal: { reason: "WAKE_ENDED" } }] });
  });

  it("DECLINE is outdated", () => {
    const verdict = judge(accepted, { replies: [reply("decline")] });
    expect(verdict).toMatchObject({ wakes: [], results: [{ refusal: { reason: "OFFER_OUTDATED" } }] });
  });

  it.each(["succeeded", "failed", "stopped"] as const)("FINISHED %s frees the agent", (result) => {
    const verdict = judge(accepted, { replies: [reply("finished", { outcome: result })] }, { instanceId: null });
    expect(outcome(verdict)).toMatchObject({ wake: "finished", status: "idle" });
    // Only finished work ends a series of exhaustions.
    expect(verdict.status).toMatchObject({ forgetBackoff: result === "succeeded" });
  });

  it("FINISHED leaves a status that is not the claim", () => {
    const onCall = agentWith(ACCEPTED, { status: "on_call" });
    expect(outcome(judge(onCall, { replies: [reply("finished")] }))).toMatchObject({
      wake: "finished",
      status: undefined,
    });
  });

  it("FINISHED does not undo a service's status that the agent does not know", () => {
    const held = agentWith(ACCEPTED, { hold: { revision: 115n, until: NOW + SECOND } });
    expect(outcome(judge(held, { replies: [reply("finished")], knownRevision: 114n }))).toMatchObject({
      wake: "finished",
      status: undefined,
    });
  });
});

describe("a report during an accepted wake", () => {
  const accepted = agentWith(ACCEPTED);

  it("of idle that knows the acceptance abandons the wake", () => {
    const verdict = judge(accepted, { report: "idle", knownRevision: ACCEPTANCE });
    expect(outcome(verdict)).toMatchObject({ wake: "abandoned unreported", status: "idle" });
    expect(verdict.status).toMatchObject({ forgetBackoff: false });
  });

  it("of idle that does not know the acceptance is held off", () => {
    expect(outcome(judge(accepted, { report: "idle", knownRevision: ACCEPTANCE - 1n }))).toMatchObject({
      wake: undefined,
      report: "held_off",
    });
  });

  it("of idle abandons the wake 60 s after the acceptance, whatever it knows", () => {
    const later = (ACCEPTED.acceptedAt ?? 0) + 60 * SECOND;
    expect(outcome(judge(accepted, { report: "idle" }, { now: later - 1 }))).toMatchObject({ report: "held_off" });
    expect(outcome(judge(accepted, { report: "idle" }, { now: later }))).toMatchObject({
      wake: "abandoned unreported",
    });
  });

  it.each(["accept", "working"] as const)("of idle with %s in the same beat is held off", (type) => {
    const beat = { report: "idle", knownRevision: ACCEPTANCE, replies: [reply(type)] } as const;
    expect(outcome(judge(accepted, beat))).toMatchObject({ wake: undefined, report: "held_off" });
  });

  it.each(["busy", "on_call"] as const)("of %s counts as reported", (report) => {
    const verdict = judge(accepted, { report });
    expect(verdict.wakes).toEqual([]);
    expect(verdict.status).toMatchObject(report === "busy" ? { kind: "renew" } : { kind: "change", status: "on_call" });
  });

  it("of exhausted counts as reported, and the wake stays", () => {
    const verdict = judge(accepted, { report: { exhausted: { reason: "rate_limit" } } });
    expect(outcome(verdict)).toMatchObject({ wake: undefined, status: "exhausted" });
  });

  it("that is a goodbye abandons the wake", () => {
    expect(outcome(judge(accepted, "leaving"))).toMatchObject({ wake: "abandoned leaving", status: "offline" });
  });

  it("after a return from offline leads to the claim, and the wake is not abandoned", () => {
    const offline = agentWith({ ...ACCEPTED, abandonAt: NOW + SECOND }, { status: "offline", leaseExpiresAt: null });
    const verdict = judge(offline, {});
    expect(verdict.status).toMatchObject({ kind: "change", status: "busy", cause: "heartbeat" });
    expect(verdict.wakes).toMatchObject([{ state: "accepted", abandon: "clear" }]);
  });

  it("after a return from offline leads to exhausted while recovery_at is ahead", () => {
    const exhaustion = { reason: "billing", exhaustedAt: NOW - SECOND, recoveryAt: NOW + SECOND } as const;
    const offline = agentWith({ ...ACCEPTED, abandonAt: NOW }, { status: "offline", exhaustion });
    expect(judge(offline, {}).status).toMatchObject({ status: "exhausted" });
  });
});

describe("a reply to a wake that has ended", () => {
  const ended = (more: Partial<Wake>): Wake => ({
    ...ACCEPTED,
    id: 1n,
    agent: 1n,
    agentId: "bob-1",
    state: "abandoned",
    reason: "offline",
    answerWithinMs: 30_000,
    payload: null,
    principal: "service:calendar",
    actor: "service:calendar",
    createdAt: 0,
    endedAt: NOW,
    outcome: null,
    note: "",
    lateOutcome: null,
    cancelRequestedAt: null,
    cancelNote: "",
    revision: 119n,
    ...more,
  });
  const free = agentWith(null);

  it("FINISHED stores a late outcome, once", () => {
    const late = judge(free, { replies: [reply("finished", { outcome: "failed" })] }, { known: [ended({})] });
    expect(late).toMatchObject({
      wakes: [{ state: "abandoned", lateOutcome: "failed" }],
      results: [{ state: "abandoned", refusal: null }],
      status: { kind: "renew" },
    });
    const again = judge(free, { replies: [reply("finished")] }, { known: [ended({ lateOutcome: "failed" })] });
    expect(again).toMatchObject({ wakes: [], results: [{ state: "abandoned", refusal: null }] });
  });

  it("FINISHED repeated changes nothing", () => {
    const known = [ended({ state: "finished", outcome: "succeeded", reason: null })];
    expect(judge(free, { replies: [reply("finished")] }, { known })).toMatchObject({
      wakes: [],
      results: [{ state: "finished", refusal: null }],
    });
  });

  it.each(["accept", "decline", "working"] as const)("%s gets WAKE_ENDED", (type) => {
    const verdict = judge(free, { replies: [reply(type)] }, { known: [ended({})] });
    expect(verdict.results).toMatchObject([{ refusal: { reason: "WAKE_ENDED", metadata: { state: "ABANDONED" } } }]);
  });

  it("FINISHED of an offer that was never accepted gets WAKE_ENDED", () => {
    const known = [ended({ state: "lapsed", acceptedRevision: null })];
    expect(judge(free, { replies: [reply("finished")] }, { known }).results).toMatchObject([
      { refusal: { reason: "WAKE_ENDED" } },
    ]);
  });

  it("to a queued wake is outdated", () => {
    const known = [ended({ state: "queued", endedAt: null })];
    expect(judge(free, { replies: [reply("accept")] }, { known }).results).toMatchObject([
      { state: "queued", refusal: { reason: "OFFER_OUTDATED" } },
    ]);
  });
});

describe("after a claim was undone", () => {
  const undone: UndoneClaim = { claim: "busy", offerRevision: OFFER, endRevision: 120n, until: NOW + SECOND };
  const free = agentWith(null, {}, undone);

  it("a report of the claim that knows it, but not its end, is held off", () => {
    expect(outcome(judge(free, { report: "busy", knownRevision: 119n }))).toMatchObject({ report: "held_off" });
  });

  it.each([
    { why: "it does not know the claim", report: "busy", knownRevision: 99n, now: NOW },
    { why: "it knows the end", report: "busy", knownRevision: 120n, now: NOW },
    { why: "it is of another status", report: "on_call", knownRevision: 119n, now: NOW },
    { why: "60 s have passed", report: "busy", knownRevision: 119n, now: NOW + SECOND },
  ] as const)("a report counts if $why", ({ report, knownRevision, now }) => {
    expect(outcome(judge(free, { report, knownRevision }, { now }))).toMatchObject({
      report: "change",
      status: report,
    });
  });
});

describe("a change that no beat makes", () => {
  it("ends an offer when the lease expires, and gives an accepted wake one more lease", () => {
    expect(afterLeaseEnd(agentWith(OFFERED), NOW)).toMatchObject([{ state: "lapsed", reason: "offline" }]);
    expect(afterLeaseEnd(agentWith(ACCEPTED), NOW)).toMatchObject([{ state: "accepted", abandon: "lease" }]);
    expect(afterLeaseEnd(agentWith(null), NOW)).toEqual([]);
  });

  it.each([
    { to: "exhausted", offered: "declined", accepted: undefined },
    { to: "idle", offered: "cancelled", accepted: "abandoned" },
    { to: "offline", offered: "cancelled", accepted: "abandoned" },
    { to: "on_call", offered: "cancelled", accepted: undefined },
    { to: "busy", offered: undefined, accepted: undefined },
  ] as const)("by a service, to $to: offered → $offered, accepted → $accepted", ({ to, offered, accepted }) => {
    expect(afterServiceChange(agentWith(OFFERED), to, NOW)[0]?.state).toBe(offered);
    expect(afterServiceChange(agentWith(ACCEPTED), to, NOW)[0]?.state).toBe(accepted);
  });

  it("is a move: it frees the agent of an offer, and leaves the status of one that works", () => {
    expect(afterMove(agentWith(OFFERED), NOW)).toMatchObject({
      status: { status: "idle" },
      wakes: [{ state: "lapsed" }],
    });
    const working = afterMove(agentWith(ACCEPTED), NOW);
    expect(working).toMatchObject({ wakes: [{ state: "abandoned", reason: "moved" }] });
    expect(working.status).toBeUndefined();
  });

  it("is a recovery: it leads to the claim of an accepted wake", () => {
    const exhaustion = { reason: "rate_limit", exhaustedAt: NOW - SECOND, recoveryAt: NOW } as const;
    const exhausted = agentWith(ACCEPTED, { status: "exhausted", exhaustion });
    const recovery = judgeRecovery(exhausted, NOW);
    expect(recovery && recoveryWithWake(exhausted, recovery)).toMatchObject({ status: "busy", cause: "recovery" });
  });
});
