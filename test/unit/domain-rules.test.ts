import { describe, expect, it } from "vitest";
import type { ReportedExhaustion } from "../../common/contract/enum-names.ts";
import { toRfc3339 } from "../../common/contract/time.ts";
import { judgeStatusRequest } from "../../src/domain/status-machine.ts";
import { DAY, HOUR, MINUTE, SECOND, START, Story } from "../support/agent-story.ts";

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

  it("brings an offline agent back as exhausted before its recovery", () => {
    const story = new Story();
    story.exhaust({ reason: "billing", retryAfterMs: 3_600_000 });
    const before = story.agent.exhaustion;
    story.leaseEnd();
    expect(story.after(HOUR - 1).beat(undefined)).toMatchObject({ status: "exhausted", cause: "heartbeat" });
    expect(story.agent.exhaustion).toEqual(before);
  });

  it("brings an offline agent back as idle after its recovery, and clears the exhaustion", () => {
    const story = new Story();
    story.exhaust({ reason: "billing", retryAfterMs: 3_600_000 });
    story.leaseEnd();
    const recoveryAt = START + HOUR;
    expect(story.after(HOUR).beat(undefined)).toMatchObject({ status: "idle", notBefore: recoveryAt });
    expect(story.agent.exhaustion).toBeNull();
  });
});

describe("a report of the agent", () => {
  it.each(["idle", "on_call", "busy"] as const)("ends an exhaustion by the status %s", (status) => {
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

  it("changes nothing when it is repeated", () => {
    const story = new Story({ status: "busy" });
    expect(story.beat("busy")).toEqual({ kind: "renew" });
  });
});

describe("a claim by a service", () => {
  it.each(["idle", "on_call"] as const)("lapses at the end of its hold to the status before it: %s", (status) => {
    const story = new Story({ status });
    story.word("busy");
    expect(story.after(MINUTE - 1).lapse()).toBeUndefined();
    expect(story.after(1).lapse()).toMatchObject({ status, cause: "service", notBefore: START + MINUTE });
    expect(story.agent).toMatchObject({ status, hold: null, lapsesTo: null });
    expect(story.lapse()).toBeUndefined();
  });

  it.each([
    ["a report of its status", (story: Story) => story.beat("busy")],
    ["a report of its status after its hold", (story: Story) => story.after(HOUR).beat("busy")],
    ["a beat without a status that knows of it", (story: Story) => story.beat(undefined, story.revision)],
    ["a beat after its hold that knows of it", (story: Story) => story.after(HOUR).beat(undefined, story.revision)],
    ["a report of another status that knows of it", (story: Story) => story.beat("on_call", story.revision)],
  ])("does not lapse after %s", (_, confirm) => {
    const story = new Story();
    story.word("busy");
    confirm(story);
    expect(story.after(HOUR).lapse()).toBeUndefined();
    expect(story.agent.status).not.toBe("idle");
  });

  it.each([
    ["a report of another status that does not know of it", (story: Story) => story.beat("idle")],
    ["a beat without a status", (story: Story) => story.beat(undefined)],
    ["a beat that knows of something older", (story: Story) => story.beat(undefined, story.revision - 1n)],
  ])("lapses despite %s", (_, beat) => {
    const story = new Story();
    story.word("busy");
    beat(story);
    expect(story.after(MINUTE).lapse()).toMatchObject({ status: "idle", cause: "service" });
  });

  it("with a hold of 0 does not lapse", () => {
    const story = new Story();
    story.word("busy", 0);
    expect(story.after(HOUR).lapse()).toBeUndefined();
    expect(story.agent.status).toBe("busy");
  });

  it("ends without a lapse by any other transition, which also ends its hold", () => {
    const story = new Story();
    story.word("busy");
    story.word({ exhausted: { reason: "billing", retryAfterMs: 1_000 } });
    expect(story.after(HOUR).lapse()).toBeUndefined();
    story.recover();
    story.word("busy");
    story.leaseEnd();
    expect(story.agent.hold).toBeNull();
    expect(story.after(HOUR).lapse()).toBeUndefined();
  });

  it("that follows a claim without confirmation lapses to the status before both", () => {
    const story = new Story();
    story.word("busy");
    story.word("on_call");
    expect(story.after(MINUTE).lapse()).toMatchObject({ status: "idle" });
  });

  it("that returns to the status before the first one does not lapse", () => {
    const story = new Story({ status: "on_call" });
    story.word("busy");
    story.word("on_call");
    expect(story.after(MINUTE).lapse()).toBeUndefined();
    expect(story.agent.status).toBe("on_call");
  });

  it("does not count as work when it lapses: the backoff of exhaustions goes on", () => {
    const story = new Story();
    story.word("busy");
    expect(story.after(MINUTE).lapse()).toMatchObject({ forgetBackoff: false });
  });

  it.each(["on_call", "busy"] as const)("is rejected for a suspect agent: %s", (status) => {
    const suspectSince = START - SECOND;
    const claim = () =>
      judgeStatusRequest({ ...new Story().agent, suspectSince }, { status, holdMs: undefined }, START, 0.5);
    expect(claim).toThrow(
      expect.objectContaining({ reason: "AGENT_OFFLINE", metadata: { suspectSince: toRfc3339(suspectSince) } }),
    );
  });

  it.each(["idle", "offline"] as const)("is no %s: a service may set it for a suspect agent", (status) => {
    const agent = { ...new Story({ status: "busy" }).agent, suspectSince: START };
    expect(judgeStatusRequest(agent, { status, holdMs: undefined }, START, 0.5)).toMatchObject({ status });
  });
});

describe("a service's change", () => {
  it("takes precedence for 60 seconds over a report that does not know of it, and no longer", () => {
    const story = new Story();
    story.word("busy");
    expect(story.after(MINUTE - 1).beat("idle")).toEqual({ kind: "held_off", change: null });
    expect(story.agent.status).toBe("busy");
    expect(story.after(1).beat("idle")).toMatchObject({ kind: "change", status: "idle" });
  });

  it("takes precedence for the requested hold", () => {
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

  it("to exhausted takes precedence until its recovery", () => {
    const story = new Story();
    story.word({ exhausted: { reason: "billing", retryAfterMs: 86_400_000 } });
    expect(story.after(DAY - 1).beat("idle")).toEqual({ kind: "held_off", change: null });
    expect(story.after(1).beat("busy")).toMatchObject({ kind: "change", status: "busy" });
  });

  it("to exhausted takes precedence no longer than the requested hold", () => {
    const story = new Story();
    story.word({ exhausted: { reason: "billing", retryAfterMs: 86_400_000 } }, 5_000);
    expect(story.after(5 * SECOND - 1).beat("idle").kind).toBe("held_off");
    expect(story.after(1).beat("idle")).toMatchObject({ kind: "change", status: "idle" });
    expect(story.agent.exhaustion).toBeNull();
  });

  it("yields to a report that knows of it, and its hold ends", () => {
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
    expect(story.beat(undefined, story.revision)).toEqual({ kind: "known" });
    expect(story.beat(undefined, story.revision)).toEqual({ kind: "renew" });
    expect(story.beat("idle").kind).toBe("held_off");
  });

  it.each([
    ["rate_limit", "billing"],
    ["billing", "rate_limit"],
  ] as const)("to exhausted by %s takes precedence over a report of %s that does not know of it", (said, reported) => {
    const story = new Story();
    story.word({ exhausted: { reason: said, retryAfterMs: 3_600_000 } });
    const { agent } = story;
    expect(story.exhaust({ reason: reported, retryAfterMs: 5_000 })).toEqual({ kind: "held_off", change: null });
    expect(story.agent).toEqual(agent);
  });

  it("to exhausted is confirmed by a report of the same reason", () => {
    const story = new Story();
    story.word({ exhausted: { reason: "billing", retryAfterMs: 3_600_000 } });
    expect(story.exhaust({ reason: "billing", retryAfterMs: 5_000 })).toEqual({ kind: "confirm" });
    expect(story.recoversInSeconds).toBe(3_600);
    expect(story.beat("idle")).toMatchObject({ kind: "change", status: "idle" });
  });

  it("to exhausted takes the deadline of a report of the same reason", () => {
    const story = new Story();
    story.word({ exhausted: { reason: "billing", retryAfterMs: 3_600_000 } });
    expect(story.exhaust({ reason: "billing", recoveryAt: START + MINUTE })).toMatchObject({ kind: "change" });
    expect(story.agent).toMatchObject({ hold: null, exhaustion: { recoveryAt: START + MINUTE } });
  });

  it("to exhausted yields to a report of another reason that knows of it", () => {
    const story = new Story();
    story.word({ exhausted: { reason: "billing", retryAfterMs: 3_600_000 } });
    const news: ReportedExhaustion = { reason: "rate_limit", retryAfterMs: 5_000 };
    expect(story.beat({ exhausted: news }, story.revision)).toMatchObject({ kind: "change", status: "exhausted" });
    expect(story.agent.exhaustion).toMatchObject({ reason: "rate_limit", recoveryAt: START + 5 * SECOND });
  });

  it("recovers an exhausted agent, against its own repeated report", () => {
    const story = new Story();
    const news: ReportedExhaustion = { reason: "rate_limit", retryAfterMs: 3_600_000 };
    story.exhaust(news);
    expect(story.word("idle")).toMatchObject({ status: "idle", cause: "service" });
    expect(story.agent.exhaustion).toBeNull();
    expect(story.exhaust(news)).toEqual({ kind: "held_off", change: null });
    expect(story.agent.status).toBe("idle");
  });

  it("replaces an earlier one, also for agents that know of that", () => {
    const story = new Story();
    story.word("busy");
    const first = story.revision;
    story.word("on_call");
    expect(story.beat("idle", first).kind).toBe("held_off");
    expect(story.beat("idle", story.revision).kind).toBe("change");
  });

  it("to the present state changes nothing", () => {
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

  it("brings it back as exhausted when a service exhausted it meanwhile", () => {
    const story = new Story({ status: "offline" });
    story.word({ exhausted: { reason: "billing", retryAfterMs: 3_600_000 } });
    expect(story.agent.status).toBe("offline");
    expect(story.beat("idle")).toMatchObject({ kind: "held_off", change: { status: "exhausted", cause: "heartbeat" } });
  });

  it("of the same exhaustion confirms the one that a service recorded", () => {
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

  it("by a service's change keeps the exhaustion", () => {
    const story = new Story();
    story.exhaust({ reason: "billing", retryAfterMs: 3_600_000 });
    const { exhaustion } = story.agent;
    story.word("offline");
    expect(story.agent).toMatchObject({ status: "offline", exhaustion });
  });
});

describe("a service's change of an offline agent", () => {
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

  /** Offline, with an exhaustion that a service cleared. */
  function cleared(holdMs?: number): Story {
    const story = new Story();
    story.exhaust({ reason: "billing", retryAfterMs: 86_400_000 });
    story.goodbye();
    story.word("idle", holdMs);
    return story;
  }

  it.each(["idle", "on_call", "busy"] as const)("clears an exhaustion and then lets it come back as %s", (status) => {
    const story = cleared();
    expect(story.after(SECOND).beat(status)).toMatchObject({ kind: "change", status, cause: "report" });
    expect(story.agent.hold).toBeNull();
  });

  it.each([
    ["a minute", undefined, MINUTE],
    ["the requested hold", 5_000, 5 * SECOND],
  ])("clears an exhaustion and holds it off for %s: the agent comes back idle", (_, holdMs, micros) => {
    const story = cleared(holdMs);
    const news: ReportedExhaustion = { reason: "billing", retryAfterMs: 86_400_000 };
    const verdict = story.after(micros - 1).exhaust(news);
    expect(verdict).toMatchObject({ kind: "held_off", change: { status: "idle", cause: "heartbeat" } });
    expect(story.agent).toMatchObject({ status: "idle", exhaustion: null });
    expect(story.exhaust(news)).toEqual({ kind: "held_off", change: null });
    expect(story.after(1).exhaust(news)).toMatchObject({ kind: "change", status: "exhausted" });
  });

  it("clears an exhaustion and yields to a report that knows of it, or without a hold", () => {
    const knowing = cleared();
    expect(knowing.beat({ exhausted: { reason: "billing" } }, knowing.revision)).toMatchObject({ status: "exhausted" });
    expect(cleared(0).exhaust({ reason: "billing" })).toMatchObject({ kind: "change", status: "exhausted" });
  });

  it("clears an exhaustion and still holds it off after a beat without a status", () => {
    const story = cleared();
    expect(story.beat(undefined)).toMatchObject({ kind: "change", status: "idle", cause: "heartbeat" });
    expect(story.exhaust({ reason: "billing" })).toEqual({ kind: "held_off", change: null });
  });

  it("no longer holds off an exhaustion once the agent was back and left again", () => {
    const story = cleared();
    story.beat(undefined);
    story.goodbye();
    expect(story.exhaust({ reason: "billing" })).toMatchObject({ kind: "change", status: "exhausted" });
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
