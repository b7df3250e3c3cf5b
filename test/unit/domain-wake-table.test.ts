import { describe, expect, it } from "vitest";
import { WAKE_STATES, type WakeReason, type WakeState } from "../../common/contract/enum-names.ts";
import { isTerminal, type LiveWakeState } from "../../src/domain/wake.ts";
import { stepOf, WAKE_EVENTS, WAKE_TABLE, type WakeEvent } from "../../src/domain/wake-machine.ts";

const NOW = 1_790_000_000_000_000;
const GIVEN = "suspect" satisfies WakeReason;

function wake(state: LiveWakeState, more: Partial<Parameters<typeof stepOf>[0]> = {}) {
  return {
    wakeId: "slot-1",
    state,
    ifUnavailable: "refuse",
    offers: state === "queued" ? 0 : 1,
    maxOffers: 3,
    expiresAt: NOW + 60_000_000,
    offerRevision: state === "queued" ? 0n : 7n,
    ...more,
  } as const;
}

/** `state reason`; "requeue or" where the wake may be queued again. */
function cell(state: LiveWakeState, event: WakeEvent): string {
  const refused = stepOf(wake(state), event, NOW, GIVEN);
  if (refused === undefined) return "-";
  const again = stepOf(wake(state, { ifUnavailable: "queue" }), event, NOW, GIVEN);
  const text = `${refused.state} ${refused.reason ?? ""}`.trim();
  return again?.state === "queued" ? `requeue or ${text}` : text;
}

/** The table of the design, written independently of the code: each cell, in the order of the events. */
const EXPECTED: Readonly<Record<LiveWakeState, Readonly<Record<WakeEvent, string>>>> = {
  queued: {
    offer: "offered",
    expire: "expired suspect",
    accept: "-",
    decline: "-",
    finish: "-",
    no_answer: "-",
    busy: "-",
    on_call: "-",
    exhausted: "-",
    idle: "-",
    leave: "-",
    lease_end: "-",
    abandon: "-",
    lose_session: "-",
    move: "-",
    cancel: "cancelled",
    delete: "cancelled deleted",
    service_exhausted: "-",
    service_free: "-",
    service_work: "-",
  },
  offered: {
    offer: "-",
    expire: "-",
    accept: "accepted",
    decline: "declined suspect",
    finish: "finished",
    no_answer: "requeue or lapsed no_answer",
    busy: "requeue or declined busy",
    on_call: "requeue or declined on_call",
    exhausted: "requeue or declined exhausted",
    idle: "-",
    leave: "requeue or lapsed leaving",
    lease_end: "requeue or lapsed offline",
    abandon: "-",
    lose_session: "requeue or lapsed no_session",
    move: "requeue or lapsed moved",
    cancel: "cancelled",
    delete: "cancelled deleted",
    service_exhausted: "requeue or declined exhausted",
    service_free: "cancelled service",
    service_work: "cancelled service",
  },
  accepted: {
    offer: "-",
    expire: "-",
    accept: "-",
    decline: "-",
    finish: "finished",
    no_answer: "-",
    busy: "-",
    on_call: "-",
    exhausted: "-",
    idle: "abandoned unreported",
    leave: "abandoned leaving",
    lease_end: "-",
    abandon: "abandoned offline",
    lose_session: "-",
    move: "abandoned moved",
    cancel: "-",
    delete: "abandoned deleted",
    service_exhausted: "-",
    service_free: "abandoned service",
    service_work: "-",
  },
};

const LIVE = ["queued", "offered", "accepted"] as const;

describe("the table of wakes", () => {
  it.each(
    LIVE.flatMap((state) => WAKE_EVENTS.map((event) => ({ state, event, expected: EXPECTED[state][event] }))),
  )("$state, $event: $expected", ({ state, event, expected }) => {
    expect(cell(state, event)).toBe(expected);
  });

  it("has no row for a terminal state: a wake ends at most once", () => {
    const live: readonly WakeState[] = LIVE;
    expect(WAKE_STATES.filter((state) => !isTerminal(state))).toEqual(live);
    expect(Object.keys(WAKE_TABLE)).toEqual(live);
  });
});

const REQUEUES = WAKE_EVENTS.filter((event) => EXPECTED.offered[event].startsWith("requeue"));

describe.each(REQUEUES)("an offer that ends by %s", (event) => {
  it("is queued again while its wake has offers left", () => {
    expect(stepOf(wake("offered", { ifUnavailable: "queue", offers: 2 }), event, NOW)?.state).toBe("queued");
  });

  it("ends the wake after the last offer", () => {
    const step = stepOf(wake("offered", { ifUnavailable: "queue", offers: 3 }), event, NOW);
    expect(EXPECTED.offered[event]).toBe(`requeue or ${step?.state} ${step?.reason}`);
  });

  it.each(["refuse", "queue"] as const)("ends the wake as expired at expires_at, with %s", (ifUnavailable) => {
    const step = stepOf(wake("offered", { ifUnavailable, expiresAt: NOW }), event, NOW);
    expect(step).toMatchObject({ state: "expired", due: "answer" });
  });
});

describe("a claim counts as undone", () => {
  const undone = (event: WakeEvent) => stepOf(wake("offered"), event, NOW)?.isUndone === true;

  it.each([
    "no_answer",
    "cancel",
    "lose_session",
    "move",
    "service_free",
    "service_work",
  ] as const)("after %s, of which the agent may not know", (event) => {
    expect(undone(event)).toBe(true);
  });

  it.each([
    "decline",
    "finish",
    "busy",
    "on_call",
    "exhausted",
    "leave",
  ] as const)("not after %s, which the agent did itself", (event) => {
    expect(undone(event)).toBe(false);
  });
});
