import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ReportedExhaustion, WorkingStatus } from "../../common/contract/enum-names.ts";
import type { AgentCondition } from "../../src/domain/agent.ts";
import { Refusal } from "../../src/domain/errors.ts";
import {
  judgeBeat,
  judgeClaimLapse,
  judgeGoodbye,
  judgeLeaseEnd,
  judgeRecovery,
  judgeStatusRequest,
  STATUS_TABLE,
  type StatusChange,
} from "../../src/domain/status-machine.ts";
import { applyChange, applyConfirmation, applyKnowledge, NEW_AGENT } from "../support/apply-change.ts";
import { type ModelReport, type Outcome, PresenceModel } from "../support/presence-model.ts";

const START = 1_790_000_000_000_000;

/** An exhaustion relative to the moment at which it is reported. */
interface RelativeNews {
  readonly reason: "rate_limit" | "billing";
  readonly until: "nobody knows" | "past" | "as it is" | { readonly inMs: number } | { readonly atMs: number };
}

type RelativeReport = WorkingStatus | RelativeNews | undefined;
/** The newest revision that the agent knows: none, before the service's change, the change, the newest. */
type Known = "nothing" | "before" | "word" | "newest";

type Event =
  | { readonly kind: "wait"; readonly micros: number }
  | { readonly kind: "wait for recovery" }
  | { readonly kind: "beat"; readonly report: RelativeReport; readonly known: Known; readonly random: number }
  | {
      readonly kind: "service";
      readonly wish: WorkingStatus | "offline" | RelativeNews;
      readonly holdMs: number | undefined;
      readonly random: number;
    }
  | { readonly kind: "lease end" }
  | { readonly kind: "goodbye" }
  | { readonly kind: "claim end" }
  | { readonly kind: "recovery" };

const working = fc.constantFrom<WorkingStatus>("idle", "on_call", "busy");
const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const delayMs = fc.integer({ min: 1, max: 7_200_000 });
const news = fc.record<RelativeNews>({
  reason: fc.constantFrom("rate_limit", "billing"),
  until: fc.oneof(
    fc.constantFrom("nobody knows" as const, "past" as const, "as it is" as const),
    fc.record({ inMs: delayMs }),
    fc.record({ atMs: delayMs }),
  ),
});
const event: fc.Arbitrary<Event> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("wait"), micros: fc.integer({ min: 0, max: 90_000_000 }) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("wait"), micros: fc.integer({ min: 0, max: 26 * 3_600_000_000 }) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("wait for recovery") }) },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant("beat"),
      report: fc.oneof(fc.constant(undefined), working, news),
      known: fc.constantFrom<Known>("nothing", "before", "word", "newest"),
      random,
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("service"),
      wish: fc.oneof(working, fc.constant("offline" as const), news),
      holdMs: fc.constantFrom(undefined, 0, 30_000, 3_600_000),
      random,
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom("lease end", "goodbye", "recovery", "claim end") }) },
);

function absolute(relative: RelativeNews, model: PresenceModel): ReportedExhaustion {
  const { reason, until } = relative;
  if (until === "nobody knows") return { reason };
  if (until === "past") return { reason, recoveryAt: model.now };
  if (until === "as it is") return { reason, recoveryAt: model.exhaustion?.until ?? 0 };
  return "inMs" in until
    ? { reason, retryAfterMs: until.inMs }
    : { reason, recoveryAt: model.now + until.atMs * 1_000 };
}

/** The status machine and the storage's use of its verdicts, beside the model. */
class Both {
  readonly model = new PresenceModel(START);
  agent: AgentCondition = NEW_AGENT;
  revision = 1_000n;

  happen(event: Event): void {
    const { model } = this;
    switch (event.kind) {
      case "wait":
        model.now += event.micros;
        return;
      case "wait for recovery":
        model.now = Math.max(model.now, model.exhaustion?.until ?? 0);
        return;
      case "beat": {
        const report: ModelReport =
          typeof event.report === "object" ? { exhausted: absolute(event.report, model) } : event.report;
        const knownRevision = this.#known(event.known);
        const expected = model.beat(report, knownRevision);
        const verdict = judgeBeat(this.agent, { report, knownRevision }, this.model.now, event.random);
        if (verdict.kind === "confirm") {
          expect(this.agent.hold, "only a hold can be confirmed").not.toBeNull();
          this.agent = applyConfirmation(this.agent);
        }
        if (verdict.kind === "known") {
          expect(this.agent.lapsesTo, "only a claim can be known").not.toBeNull();
          this.agent = applyKnowledge(this.agent);
        }
        const change = verdict.kind === "held_off" ? verdict.change : verdict.kind === "change" ? verdict : null;
        const changed = change === null ? "unchanged" : "changed";
        this.#compare(change, expected, verdict.kind === "held_off" ? "held_off" : changed);
        return;
      }
      case "service": {
        const wish = typeof event.wish === "object" ? { exhausted: absolute(event.wish, model) } : event.wish;
        const expected = model.service(wish, event.holdMs, this.revision + 1n);
        this.#judge(expected, () =>
          judgeStatusRequest(this.agent, { status: wish, holdMs: event.holdMs }, this.model.now, event.random),
        );
        return;
      }
      case "lease end":
        this.#judge(model.leave(), () => judgeLeaseEnd(this.agent));
        return;
      case "goodbye":
        this.#judge(model.leave(), () => judgeGoodbye(this.agent));
        return;
      case "claim end":
        this.#judge(model.claimEnds(), () => judgeClaimLapse(this.agent, this.model.now));
        return;
      case "recovery":
        this.#judge(model.timePassed(), () => judgeRecovery(this.agent, this.model.now));
        return;
    }
  }

  #known(known: Known): bigint | undefined {
    const word = this.model.word?.revision ?? this.revision;
    return { nothing: undefined, before: word - 1n, word, newest: this.revision }[known];
  }

  #judge(expected: Outcome, judge: () => StatusChange | undefined): void {
    try {
      const change = judge() ?? null;
      this.#compare(change, expected, change === null ? "unchanged" : "changed");
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#compare(null, expected, error.reason);
    }
  }

  #compare(change: StatusChange | null, expected: Outcome, outcome: string): void {
    const { model } = this;
    expect(outcome).toBe(expected);
    if (change !== null) {
      const { status } = this.agent;
      if (status === "unknown") throw new TypeError("the model has no such status");
      expect(STATUS_TABLE[status][change.status]).toContain(change.cause);
      expect(change.notBefore ?? 0, "rests on an instant that is past").toBeLessThanOrEqual(model.now);
      const before = this.agent;
      this.agent = applyChange(before, change, { now: model.now, revision: ++this.revision });
      expect([this.agent.status, this.agent.exhaustion]).not.toEqual([before.status, before.exhaustion]);
    }
    this.#adoptChoice();
    this.#expectAgreement();
  }

  /** The length chosen by the server, within its range, is not part of the model. */
  #adoptChoice(): void {
    const { choice, exhaustion, word, now } = this.model;
    if (choice === null || exhaustion === null) return;
    const until = this.agent.exhaustion?.recoveryAt ?? Number.NaN;
    expect((until - now) / 1_000).toBeGreaterThanOrEqual(choice.least);
    expect((until - now) / 1_000).toBeLessThanOrEqual(choice.most);
    exhaustion.until = until;
    if (word !== null && Number.isNaN(word.until)) word.until = until;
  }

  #expectAgreement(): void {
    const { model, agent } = this;
    expect(agent.status).toBe(model.status);
    const { exhaustion } = model;
    expect(agent.exhaustion).toEqual(
      exhaustion && { reason: exhaustion.reason, exhaustedAt: exhaustion.since, recoveryAt: exhaustion.until },
    );
    if (agent.status === "exhausted") expect(agent.exhaustion).not.toBeNull();
    if (agent.status !== "exhausted" && agent.status !== "offline") expect(agent.exhaustion).toBeNull();
    const { standing } = model;
    const hold = agent.hold !== null && agent.hold.until > model.now ? agent.hold : null;
    expect(agent.lapsesTo).toBe(model.returnsTo);
    expect(hold).toEqual(standing && { revision: standing.revision, until: standing.until });
  }
}

describe("any history of an agent", () => {
  it("matches the model of the domain", () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), (events) => {
        const both = new Both();
        for (const each of events) both.happen(each);
      }),
      { numRuns: 1_500 },
    );
  });

  it("ends in recovery if only time passes for an exhausted agent", () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 40 }), (events) => {
        const both = new Both();
        for (const each of events) both.happen(each);
        both.happen({ kind: "wait for recovery" });
        both.happen({ kind: "recovery" });
        expect(both.agent.exhaustion).toBeNull();
        expect(both.agent.status).not.toBe("exhausted");
      }),
      { numRuns: 300 },
    );
  });
});
