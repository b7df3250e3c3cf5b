import { describe, expect, it } from "vitest";
import type { ReportedExhaustion } from "../../common/contract/enum-names.ts";
import {
  backoffMs,
  countedSteps,
  FIRST_BACKOFF_MS,
  LONGEST_BACKOFF_MS,
  MAX_STEPS,
} from "../../src/domain/exhaustion.ts";
import { DAY, HOUR, MINUTE, SECOND, START, Story } from "../support/agent-story.ts";

describe("the length of an exhaustion", () => {
  it("follows the provider's delay", () => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit", retryAfterMs: 12_345 });
    expect(story.recoversInSeconds).toBe(12.345);
  });

  it("follows the provider's deadline, to the microsecond", () => {
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
    const news: ReportedExhaustion = { reason: "rate_limit", retryAfterMs: 30_000 };
    story.exhaust(news);
    const { exhaustion } = story.agent;
    for (let beats = 0; beats < 5; beats++) expect(story.after(5 * SECOND).exhaust(news)).toEqual({ kind: "renew" });
    expect(story.after(SECOND).exhaust({ reason: "rate_limit", retryAfterMs: 90_000 })).toEqual({ kind: "renew" });
    expect(story.exhaust({ reason: "rate_limit" })).toEqual({ kind: "renew" });
    expect(story.agent.exhaustion).toEqual(exhaustion);
  });

  it("counts a delay once also over an absence", () => {
    const story = new Story();
    const news: ReportedExhaustion = { reason: "rate_limit", retryAfterMs: 60_000 };
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

  it("keeps exhausted_at for an offline agent", () => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit", retryAfterMs: 30_000 });
    story.after(SECOND).leaseEnd();
    story.after(SECOND).word({ exhausted: { reason: "billing", retryAfterMs: 50_000 } });
    expect(story.agent.exhaustion).toMatchObject({ reason: "billing", exhaustedAt: START });
  });

  it("starts again when the earlier exhaustion was over while the agent was offline", () => {
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
  /** Exhausts the agent without a deadline and waits for the recovery. @returns the duration in seconds */
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

  it("continues over both reasons", () => {
    const story = new Story();
    expect([round(story, "rate_limit"), round(story, "billing")]).toEqual([30, 1_200]);
  });

  it("does not count deadlines that the provider named", () => {
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

  it("continues after almost 24 hours without exhaustion", () => {
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

  it("counts exactly 24 hours since the last change, and not a microsecond more", () => {
    const backoff = { steps: 2, lastAt: START };
    expect(countedSteps(backoff, START + DAY)).toBe(2);
    expect(countedSteps(backoff, START + DAY + 1)).toBe(0);
  });

  it("stays at its maximum for an agent that is exhausted again and again", () => {
    const story = new Story();
    const rounds = Array.from({ length: 14 }, () => {
      const seconds = round(story, "billing");
      // Some time passes between a recovery and the next attempt.
      story.after(MINUTE);
      return seconds;
    });
    expect(rounds.slice(-3)).toEqual([86_400, 86_400, 86_400]);
  });

  it("is not reset by one long exhaustion with the provider's deadline", () => {
    const story = new Story();
    round(story, "rate_limit");
    round(story, "rate_limit");
    story.exhaust({ reason: "rate_limit", recoveryAt: story.now + 3 * DAY });
    story.after(3 * DAY).recover();
    expect(round(story.after(MINUTE), "rate_limit")).toBe(120);
  });

  it("is not reset during an exhaustion", () => {
    const story = new Story();
    round(story, "rate_limit");
    story.exhaust({ reason: "rate_limit", recoveryAt: story.now + 3 * DAY });
    story.after(2 * DAY).exhaust({ reason: "billing" });
    expect(story.recoversInSeconds).toBe(1_200);
  });

  it("is not reset while an exhaustion that is over waits to be cleared", () => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit" });
    story.beat("idle");
    story.exhaust({ reason: "rate_limit", recoveryAt: story.now + 3 * DAY });
    story.leaseEnd();
    story.after(3 * DAY).exhaust({ reason: "rate_limit" });
    expect(story.recoversInSeconds).toBe(60);
  });

  it("has a limited step counter, which a flapping agent cannot overflow", () => {
    const story = new Story();
    for (let rounds = 0; rounds < 40_000; rounds++) {
      story.exhaust({ reason: "rate_limit" });
      story.beat("idle");
    }
    expect(story.agent.backoff.steps).toBe(MAX_STEPS);
    expect(round(story, "rate_limit")).toBe(86_400);
  });

  it.each([
    FIRST_BACKOFF_MS.rate_limit,
    FIRST_BACKOFF_MS.billing,
  ])("reaches its maximum long before the limit of the counter: from %i ms", (first) => {
    expect(first * 2 ** MAX_STEPS).toBeGreaterThan(LONGEST_BACKOFF_MS);
    expect(MAX_STEPS).toBeLessThanOrEqual(32_767);
  });

  it.each([
    ["by a report of the agent", (story: Story) => story.beat("idle")],
    ["by a service", (story: Story) => story.word("idle", 0)],
  ])("counts 24 hours from an early end %s, not from the planned end", (_, end) => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit" });
    story.exhaust({ reason: "rate_limit", recoveryAt: START + 3 * DAY });
    end(story.after(MINUTE));
    expect(round(story.after(DAY + SECOND), "rate_limit")).toBe(30);
  });

  it("is reset 24 hours after the end of an exhaustion that was not cleared yet", () => {
    const story = new Story();
    story.exhaust({ reason: "rate_limit", retryAfterMs: 1_000 });
    story.after(SECOND).recover();
    story.exhaust({ reason: "rate_limit" });
    story.leaseEnd();
    expect(round(story.after(DAY + MINUTE), "rate_limit")).toBe(30);
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

  it("of an agent without a history counts no steps", () => {
    expect(new Story().agent.backoff).toEqual({ steps: 0, lastAt: null });
    expect(countedSteps({ steps: 0, lastAt: null }, START)).toBe(0);
  });
});
