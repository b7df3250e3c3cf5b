import { describe, expect, it } from "vitest";
import type { AgentCondition, ExhaustionNews } from "../../src/domain/agent.ts";
import { backoffMs, countedSteps, LONGEST_BACKOFF_MS } from "../../src/domain/exhaustion.ts";
import {
  type Beat,
  type BeatVerdict,
  judgeBeat,
  judgeGoodbye,
  judgeLeaseEnd,
  judgeRecovery,
  judgeServiceWord,
  type ServiceWord,
  type StatusChange,
} from "../../src/domain/status-machine.ts";
import { applyChange, applyConfirmation, NEW_AGENT } from "../support/apply-change.ts";

const START = 1_790_000_000_000_000;
const SECOND = 1_000_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** One agent, its time, and what it goes through; each change gets the next revision. */
class Story {
  agent: AgentCondition;
  now = START;
  revision = 100n;

  constructor(agent: Partial<AgentCondition> = {}) {
    this.agent = { ...NEW_AGENT, ...agent };
  }

  after(micros: number): this {
    this.now += micros;
    return this;
  }

  beat(report: Beat["report"], knownRevision?: bigint): BeatVerdict {
    const verdict = judgeBeat(this.agent, { report, knownRevision }, this.now, 0.5);
    if (verdict.kind === "change") this.#apply(verdict);
    if (verdict.kind === "held_off") this.#apply(verdict.change);
    if (verdict.kind === "confirm") this.agent = applyConfirmation(this.agent);
    return verdict;
  }

  word(status: ServiceWord["status"], holdMs?: number): StatusChange | undefined {
    return this.#apply(judgeServiceWord(this.agent, { status, holdMs }, this.now, 0.5));
  }

  exhaust(news: ExhaustionNews): BeatVerdict {
    return this.beat({ exhausted: news });
  }

  leaseEnd(): StatusChange | undefined {
    return this.#apply(judgeLeaseEnd(this.agent));
  }

  goodbye(): StatusChange | undefined {
    return this.#apply(judgeGoodbye(this.agent));
  }

  recover(): StatusChange | undefined {
    return this.#apply(judgeRecovery(this.agent, this.now));
  }

  /** How long the exhaustion still lasts, in seconds. */
  get recoversInSeconds(): number {
    if (this.agent.exhaustion === null) throw new Error("the agent is not exhausted");
    return (this.agent.exhaustion.recoveryAt - this.now) / SECOND;
  }

  #apply<Change extends StatusChange | null | undefined>(change: Change): Change {
    if (change) this.agent = applyChange(this.agent, change, { now: this.now, revision: ++this.revision });
    return change;
  }
}

describe("a beat without a status", () => {
  it.each(["idle", "on_call", "busy"] as const)("only renews the lease of an agent that is %s", (status) => {
    expect(new Story({ status }).beat(undefined)).toEqual({ kind: "renew" });
  });

  it("only renews the lease of an exhausted agent, even when its recovery is due", () => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit", retryAfterMs: 1_000 });
    expect(story.after(HOUR).beat(undefined)).toEqual({ kind: "renew" });
  });

  it("brings an offline agent back as idle", () => {
    const story = new Story({ status: "offline" });
    expect(story.beat(undefined)).toMatchObject({ status: "idle", cause: "heartbeat" });
  });

  it("brings an offline agent back as exhausted while its recovery is ahead", () => {
    const story = new Story();
    story.exhaust({ reason: "billing", retryAfterMs: 3_600_000 });
    const before = story.agent.exhaustion;
    story.leaseEnd();
    expect(story.after(HOUR - 1).beat(undefined)).toMatchObject({ status: "exhausted", cause: "heartbeat" });
    expect(story.agent.exhaustion).toEqual(before);
  });

  it("brings an offline agent back as idle once its recovery is past, and clears the exhaustion", () => {
    const story = new Story();
    story.exhaust({ reason: "billing", retryAfterMs: 3_600_000 });
    story.leaseEnd();
    const recoveryAt = START + HOUR;
    expect(story.after(HOUR).beat(undefined)).toMatchObject({ status: "idle", notBefore: recoveryAt });
    expect(story.agent.exhaustion).toBeNull();
  });
});

describe("the agent's own word", () => {
  it.each(["idle", "on_call", "busy"] as const)("ends an exhaustion by the report %s", (status) => {
    const story = new Story();
    story.exhaust({ reason: "billing", retryAfterMs: 86_400_000 });
    expect(story.after(SECOND).beat(status)).toMatchObject({ kind: "change", status, cause: "report" });
    expect(story.agent.exhaustion).toBeNull();
  });

  it.each([
    "idle",
    "on_call",
    "busy",
  ] as const)("brings it back from offline as %s, without its exhaustion", (status) => {
    const story = new Story();
    story.exhaust({ reason: "billing", retryAfterMs: 86_400_000 });
    story.goodbye();
    expect(story.beat(status)).toMatchObject({ kind: "change", status, cause: "report" });
    expect(story.agent.exhaustion).toBeNull();
  });

  it("changes nothing by repetition", () => {
    const story = new Story({ status: "busy" });
    expect(story.beat("busy")).toEqual({ kind: "renew" });
  });
});

describe("a service's word", () => {
  it("stands for 60 seconds against a report that does not know of it, and no longer", () => {
    const story = new Story();
    story.word("busy");
    expect(story.after(MINUTE - 1).beat("idle")).toEqual({ kind: "held_off", change: null });
    expect(story.agent.status).toBe("busy");
    expect(story.after(1).beat("idle")).toMatchObject({ kind: "change", status: "idle" });
  });

  it("stands for as long as the service says", () => {
    const story = new Story();
    story.word("on_call", 3_600_000);
    expect(story.after(HOUR - 1).beat("busy").kind).toBe("held_off");
    expect(story.after(1).beat("busy").kind).toBe("change");
  });

  it("with a hold of 0 yields to the next report", () => {
    const story = new Story();
    story.word("busy", 0);
    expect(story.beat("idle")).toMatchObject({ kind: "change", status: "idle" });
  });

  it("of an exhaustion stands until its recovery", () => {
    const story = new Story();
    story.word({ exhausted: { reason: "billing", retryAfterMs: 86_400_000 } });
    expect(story.after(DAY - 1).beat("idle")).toEqual({ kind: "held_off", change: null });
    expect(story.after(1).beat("busy")).toMatchObject({ kind: "change", status: "busy" });
  });

  it("of an exhaustion stands no longer than the service says", () => {
    const story = new Story();
    story.word({ exhausted: { reason: "billing", retryAfterMs: 86_400_000 } }, 5_000);
    expect(story.after(5 * SECOND - 1).beat("idle").kind).toBe("held_off");
    expect(story.after(1).beat("idle")).toMatchObject({ kind: "change", status: "idle" });
    expect(story.agent.exhaustion).toBeNull();
  });

  it("yields to a report that knows of it, and ends with that", () => {
    const story = new Story();
    story.word("busy");
    const { revision } = story;
    expect(story.beat("idle", revision - 1n).kind).toBe("held_off");
    expect(story.beat("idle", revision)).toMatchObject({ kind: "change", status: "idle", hold: { kind: "clear" } });
    expect(story.agent.hold).toBeNull();
  });

  it("yields to a report that knows of something newer", () => {
    const story = new Story();
    story.word("busy");
    expect(story.beat("on_call", story.revision + 1_000n)).toMatchObject({ kind: "change", status: "on_call" });
  });

  it("is confirmed by a report of the same status, which is no transition and ends the hold", () => {
    const story = new Story();
    story.word("busy");
    expect(story.beat("busy")).toEqual({ kind: "confirm" });
    expect(story.beat("idle")).toMatchObject({ kind: "change", status: "idle" });
  });

  it("is not confirmed by a beat without a status", () => {
    const story = new Story();
    story.word("busy");
    expect(story.beat(undefined, story.revision)).toEqual({ kind: "renew" });
    expect(story.beat("idle").kind).toBe("held_off");
  });

  it("recovers an exhausted agent, against its own repeated report", () => {
    const story = new Story();
    const news: ExhaustionNews = { reason: "rate_limit", retryAfterMs: 3_600_000 };
    story.exhaust(news);
    expect(story.word("idle")).toMatchObject({ status: "idle", cause: "service" });
    expect(story.agent.exhaustion).toBeNull();
    expect(story.exhaust(news)).toEqual({ kind: "held_off", change: null });
    expect(story.agent.status).toBe("idle");
  });

  it("takes the place of an earlier one, also for those who know of that", () => {
    const story = new Story();
    story.word("busy");
    const first = story.revision;
    story.word("on_call");
    expect(story.beat("idle", first).kind).toBe("held_off");
    expect(story.beat("idle", story.revision).kind).toBe("change");
  });

  it("that says what is so already changes nothing", () => {
    expect(new Story({ status: "busy" }).word("busy")).toBeUndefined();
    expect(new Story({ status: "offline" }).word("offline")).toBeUndefined();
  });

  it("never holds off a goodbye", () => {
    const story = new Story();
    story.word("busy", 3_600_000);
    expect(story.goodbye()).toMatchObject({ status: "offline", cause: "goodbye" });
  });

  it.each([
    "idle",
    "on_call",
    "busy",
  ] as const)("puts an agent offline that is %s; its next heartbeat brings it back", (status) => {
    const story = new Story({ status });
    expect(story.word("offline")).toMatchObject({ status: "offline", cause: "service" });
    expect(story.beat(status)).toMatchObject({ kind: "change", status, cause: "report" });
  });
});

describe("a held-off report of an offline agent", () => {
  it("brings it back by heartbeat, not as reported, and is still held off afterwards", () => {
    const story = new Story();
    story.word({ exhausted: { reason: "billing", retryAfterMs: 3_600_000 } });
    const { exhaustion } = story.agent;
    story.leaseEnd();
    const verdict = story.after(MINUTE).beat("busy");
    expect(verdict).toMatchObject({ kind: "held_off", change: { status: "exhausted", cause: "heartbeat" } });
    expect(story.agent).toMatchObject({ status: "exhausted", exhaustion });
    expect(story.after(MINUTE).beat("busy")).toEqual({ kind: "held_off", change: null });
  });

  it("that was exhausted by a service while it was away comes back exhausted", () => {
    const story = new Story({ status: "offline" });
    story.word({ exhausted: { reason: "billing", retryAfterMs: 3_600_000 } });
    expect(story.agent.status).toBe("offline");
    expect(story.beat("idle")).toMatchObject({ kind: "held_off", change: { status: "exhausted", cause: "heartbeat" } });
  });

  it("that says itself that it is exhausted confirms what a service recorded", () => {
    const story = new Story({ status: "offline" });
    story.word({ exhausted: { reason: "billing", retryAfterMs: 3_600_000 } });
    expect(story.exhaust({ reason: "billing" })).toMatchObject({
      kind: "change",
      status: "exhausted",
      cause: "report",
    });
    expect(story.beat("idle")).toMatchObject({ kind: "change", status: "idle" });
  });
});

describe("going offline", () => {
  it.each(["leaseEnd", "goodbye"] as const)("by %s keeps the exhaustion", (way) => {
    const story = new Story();
    story.exhaust({ reason: "billing", retryAfterMs: 3_600_000 });
    const { exhaustion } = story.agent;
    expect(story[way]()).toMatchObject({ status: "offline" });
    expect(story.agent.exhaustion).toEqual(exhaustion);
    expect(story[way]()).toBeUndefined();
  });

  it("by a service's word keeps the exhaustion", () => {
    const story = new Story();
    story.exhaust({ reason: "billing", retryAfterMs: 3_600_000 });
    const { exhaustion } = story.agent;
    story.word("offline");
    expect(story.agent).toMatchObject({ status: "offline", exhaustion });
  });
});

describe("a service, of an offline agent", () => {
  it("records an exhaustion and leaves it offline", () => {
    const story = new Story({ status: "offline" });
    expect(story.word({ exhausted: { reason: "billing" } })).toMatchObject({ status: "offline", cause: "service" });
    expect(story.agent.exhaustion).toMatchObject({ reason: "billing", exhaustedAt: START });
  });

  it("clears an exhaustion and leaves it offline", () => {
    const story = new Story();
    story.exhaust({ reason: "billing" });
    story.goodbye();
    expect(story.word("idle")).toMatchObject({ status: "offline", cause: "service" });
    expect(story.agent).toMatchObject({ status: "offline", exhaustion: null });
  });
});

describe("recovery", () => {
  it("happens at recovery_at, never a microsecond before", () => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit", retryAfterMs: 30_000 });
    expect(story.after(30 * SECOND - 1).recover()).toBeUndefined();
    expect(story.after(1).recover()).toMatchObject({
      status: "idle",
      cause: "recovery",
      notBefore: START + 30 * SECOND,
    });
    expect(story.agent.exhaustion).toBeNull();
    expect(story.recover()).toBeUndefined();
  });

  it("of an offline agent clears the exhaustion and leaves it offline", () => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit", retryAfterMs: 30_000 });
    story.leaseEnd();
    expect(story.after(MINUTE).recover()).toMatchObject({ status: "offline", cause: "recovery" });
    expect(story.agent.exhaustion).toBeNull();
  });

  it("ends the hold of the exhaustion", () => {
    const story = new Story();
    story.word({ exhausted: { reason: "rate_limit", retryAfterMs: 30_000 } }, 3_600_000);
    story.after(30 * SECOND).recover();
    expect(story.beat("busy")).toMatchObject({ kind: "change", status: "busy" });
  });
});

describe("the length of an exhaustion", () => {
  it("is what the provider says, as a delay", () => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit", retryAfterMs: 12_345 });
    expect(story.recoversInSeconds).toBe(12.345);
  });

  it("is what the provider says, as a deadline, to the microsecond", () => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit", recoveryAt: START + 1 });
    expect(story.agent.exhaustion?.recoveryAt).toBe(START + 1);
  });

  it.each([
    ["no deadline", {}],
    ["a delay of zero", { retryAfterMs: 0 }],
    ["a deadline that is now", { recoveryAt: START }],
    ["a deadline that is past", { recoveryAt: START - 1 }],
    ["a deadline at the epoch", { recoveryAt: 0 }],
  ] as const)("is chosen by the server for %s", (_, until) => {
    const rateLimit = new Story();
    rateLimit.exhaust({ reason: "rate_limit", ...until });
    expect(rateLimit.recoversInSeconds).toBe(30);
    const billing = new Story();
    billing.exhaust({ reason: "billing", ...until });
    expect(billing.recoversInSeconds).toBe(600);
  });

  it("counts a delay once: repeated with every beat it neither moves the recovery nor makes a transition", () => {
    const story = new Story();
    const news: ExhaustionNews = { reason: "rate_limit", retryAfterMs: 30_000 };
    story.exhaust(news);
    const { exhaustion } = story.agent;
    for (let beats = 0; beats < 5; beats++) expect(story.after(5 * SECOND).exhaust(news)).toEqual({ kind: "renew" });
    expect(story.after(SECOND).exhaust({ reason: "rate_limit", retryAfterMs: 90_000 })).toEqual({ kind: "renew" });
    expect(story.exhaust({ reason: "rate_limit" })).toEqual({ kind: "renew" });
    expect(story.agent.exhaustion).toEqual(exhaustion);
  });

  it("counts a delay once also over an absence", () => {
    const story = new Story();
    const news: ExhaustionNews = { reason: "rate_limit", retryAfterMs: 60_000 };
    story.exhaust(news);
    const { exhaustion } = story.agent;
    story.after(10 * SECOND).leaseEnd();
    expect(story.after(10 * SECOND).exhaust(news)).toMatchObject({ kind: "change", status: "exhausted" });
    expect(story.agent.exhaustion).toEqual(exhaustion);
  });

  it.each([2 * HOUR, 5 * MINUTE])("moves with a new deadline, later or earlier, and keeps exhausted_at", (ahead) => {
    const story = new Story();
    story.exhaust({ reason: "billing", recoveryAt: START + HOUR });
    const recoveryAt = START + MINUTE + ahead;
    expect(story.after(MINUTE).exhaust({ reason: "billing", recoveryAt }).kind).toBe("change");
    expect(story.agent.exhaustion).toEqual({ reason: "billing", exhaustedAt: START, recoveryAt });
    expect(story.exhaust({ reason: "billing", recoveryAt })).toEqual({ kind: "renew" });
  });

  it("changes with another reason, which keeps exhausted_at", () => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit", retryAfterMs: 30_000 });
    story.after(SECOND).exhaust({ reason: "billing", retryAfterMs: 50_000 });
    expect(story.agent.exhaustion).toEqual({ reason: "billing", exhaustedAt: START, recoveryAt: START + 51 * SECOND });
  });

  it("keeps exhausted_at for an agent that is offline", () => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit", retryAfterMs: 30_000 });
    story.after(SECOND).leaseEnd();
    story.after(SECOND).word({ exhausted: { reason: "billing", retryAfterMs: 50_000 } });
    expect(story.agent.exhaustion).toMatchObject({ reason: "billing", exhaustedAt: START });
  });

  it("begins anew when the earlier exhaustion was over while the agent was offline", () => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit", retryAfterMs: 30_000 });
    story.leaseEnd();
    story.after(MINUTE).exhaust({ reason: "rate_limit", retryAfterMs: 30_000 });
    expect(story.agent.exhaustion).toMatchObject({
      exhaustedAt: START + MINUTE,
      recoveryAt: START + MINUTE + 30 * SECOND,
    });
  });
});

describe("the backoff", () => {
  /** Exhausts without a deadline and waits for the recovery; returns how long that was, in seconds. */
  function round(story: Story, reason: "rate_limit" | "billing"): number {
    story.exhaust({ reason });
    const seconds = story.recoversInSeconds;
    story.after(seconds * SECOND).recover();
    return seconds;
  }

  it("doubles with each exhaustion in a row; recovery alone does not reset it", () => {
    const story = new Story();
    const rounds = Array.from({ length: 6 }, () => round(story, "rate_limit"));
    expect(rounds).toEqual([30, 60, 120, 240, 480, 960]);
  });

  it("counts on over both reasons", () => {
    const story = new Story();
    expect([round(story, "rate_limit"), round(story, "billing")]).toEqual([30, 1_200]);
  });

  it("is not fed by deadlines that the provider named", () => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit", retryAfterMs: 5_000 });
    story.after(5 * SECOND).recover();
    expect(round(story, "rate_limit")).toBe(30);
  });

  it("is not reset by the agent's return to idle from exhausted, nor by a service", () => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit" });
    story.beat("idle");
    story.exhaust({ reason: "rate_limit" });
    expect(story.recoversInSeconds).toBe(60);
    story.word("idle", 0);
    story.word("busy", 0);
    story.word("idle", 0);
    expect(round(story, "rate_limit")).toBe(120);
  });

  it.each(["busy", "on_call"] as const)("is reset when the agent itself goes from %s to idle", (status) => {
    const story = new Story();
    round(story, "rate_limit");
    round(story, "rate_limit");
    story.beat(status);
    story.beat("idle");
    expect(round(story, "rate_limit")).toBe(30);
  });

  it("is not reset when a busy agent takes a call", () => {
    const story = new Story();
    round(story, "rate_limit");
    story.beat("busy");
    story.beat("on_call");
    expect(round(story, "rate_limit")).toBe(60);
  });

  it("goes on after almost 24 hours without exhaustion", () => {
    const story = new Story();
    round(story, "rate_limit");
    round(story, "rate_limit");
    expect(round(story.after(DAY - 10 * MINUTE), "rate_limit")).toBe(120);
  });

  it("is reset by 24 hours without exhaustion", () => {
    const story = new Story();
    round(story, "rate_limit");
    round(story, "rate_limit");
    expect(round(story.after(DAY + SECOND), "rate_limit")).toBe(30);
  });

  it("stays at its longest for an agent that is exhausted again and again", () => {
    const story = new Story();
    const rounds = Array.from({ length: 14 }, () => {
      const seconds = round(story, "billing");
      // A moment passes between a recovery and the next attempt.
      story.after(MINUTE);
      return seconds;
    });
    expect(rounds.slice(-3)).toEqual([86_400, 86_400, 86_400]);
  });

  it("does not forget because of one long exhaustion that the provider named", () => {
    const story = new Story();
    round(story, "rate_limit");
    round(story, "rate_limit");
    story.exhaust({ reason: "rate_limit", recoveryAt: story.now + 3 * DAY });
    story.after(3 * DAY).recover();
    expect(round(story.after(MINUTE), "rate_limit")).toBe(120);
  });

  it("does not forget while the agent is exhausted", () => {
    const story = new Story();
    round(story, "rate_limit");
    story.exhaust({ reason: "rate_limit", recoveryAt: story.now + 3 * DAY });
    story.after(2 * DAY).exhaust({ reason: "billing" });
    expect(story.recoversInSeconds).toBe(1_200);
  });

  it("does not forget while an exhaustion that is over waits to be cleared", () => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit" });
    story.beat("idle");
    story.exhaust({ reason: "rate_limit", recoveryAt: story.now + 3 * DAY });
    story.leaseEnd();
    story.after(3 * DAY).exhaust({ reason: "rate_limit" });
    expect(story.recoversInSeconds).toBe(60);
  });

  it("counts no further than it has to, so that a flapping agent cannot run the counter over", () => {
    const story = new Story();
    for (let rounds = 0; rounds < 40_000; rounds++) {
      story.exhaust({ reason: "rate_limit" });
      story.beat("idle");
    }
    expect(story.agent.backoff.steps).toBeLessThanOrEqual(32_767);
    expect(round(story, "rate_limit")).toBe(86_400);
  });

  it.each(["rate_limit", "billing"] as const)("by %s is spread by a tenth to either side", (reason) => {
    const plain = backoffMs(reason, 2, 0.5);
    expect(backoffMs(reason, 2, 0)).toBe(plain * 0.9);
    expect(backoffMs(reason, 2, 1 - Number.EPSILON)).toBe(plain * 1.1);
  });

  it.each([
    0,
    1,
    5,
    8,
    12,
    40,
    1_000,
    Number.MAX_SAFE_INTEGER,
  ])("after %i steps is longer than nothing and at most 24 hours", (steps) => {
    for (const reason of ["rate_limit", "billing"] as const) {
      for (const random of [0, 0.5, 0.999]) {
        const ms = backoffMs(reason, steps, random);
        expect(ms).toBeGreaterThan(0);
        expect(ms).toBeLessThanOrEqual(LONGEST_BACKOFF_MS);
        expect(Number.isSafeInteger(ms)).toBe(true);
      }
    }
  });

  it("of an agent without a past counts no steps", () => {
    expect(new Story().agent.backoff).toEqual({ steps: 0, lastAt: null });
    expect(countedSteps({ steps: 0, lastAt: null }, START)).toBe(0);
  });
});
