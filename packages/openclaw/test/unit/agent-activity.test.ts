import { describe, expect, it } from "vitest";
import { AgentActivity, type ShownStatus } from "../../src/activity/agent-activity.ts";
import type { Refusal, Signal, SignalFact } from "../../src/activity/signal.ts";
import { NO_ACCOUNTS, signalsOf } from "../recorded.ts";

const LIMITS = { silentRunMs: 3_600_000, callEndMs: 30_000 };
const NOW = 1_000_000;
const MINUTE_MS = 60_000;

/** The statuses that follow each other while a recorded case is replayed, each once. */
function replay(name: string, { accounts = NO_ACCOUNTS, withHooks = true } = {}): string[] {
  const activity = new AgentActivity(LIMITS);
  const shown: string[] = [];
  let last = "";
  for (const [signal, now] of signalsOf(name, withHooks)) {
    activity.apply(signal, now, accounts);
    const status = activity.statusAt(now);
    if (JSON.stringify(status) !== last) shown.push(textOf(status, now));
    last = JSON.stringify(status);
  }
  return shown;
}

function textOf(shown: ShownStatus, now: number): string {
  if (shown.status !== "exhausted") return shown.status;
  const { reason, until } = shown;
  return `${reason} ${until === undefined ? "open" : `${Math.round((until - now) / 1_000)} s`}`;
}

function refusal(until: number | undefined, reason: Refusal["reason"] = "rate_limit"): Refusal {
  return { reason, until, evidence: "test" };
}

function activityWith(
  ...facts: readonly (SignalFact & { readonly runId?: string; readonly isVoice?: boolean; readonly at?: number })[]
) {
  const activity = new AgentActivity(LIMITS);
  for (const { at = NOW, ...fact } of facts) activity.apply(signal(fact), at, NO_ACCOUNTS);
  return activity;
}

function signal(fact: SignalFact & { readonly runId?: string; readonly isVoice?: boolean }): Signal {
  return { agentId: "main", runId: "run", isVoice: false, ...fact };
}

describe("a recorded gateway", () => {
  it("shows one turn as busy from the moment the work is taken", () => {
    const [first] = signalsOf("one turn");
    // 17 s before the first lifecycle event.
    expect(first?.[0]).toMatchObject({ kind: "taken", agentId: "main" });
    expect(replay("one turn")).toEqual(["busy", "idle"]);
  });

  it("shows busy over short waits for the provider", () => {
    expect(replay("short waits, given up by the caller")).toEqual(["busy", "idle"]);
  });

  it("shows a long wait for the provider as exhausted, also when the caller gives up", () => {
    expect(replay("a long wait, given up by the caller")).toEqual(["busy", "rate_limit 300 s"]);
  });

  it("stays busy when a fallback model responds", () => {
    expect(replay("a fallback model answers")).toEqual(["busy", "idle"]);
  });

  it("shows an empty account as exhausted, until the gateway tries it again", () => {
    const accounts = (): Refusal => refusal(1_796_091_525_784, "billing");
    expect(replay("an empty account")).toEqual(["busy", "billing open"]);
    expect(replay("an empty account", { accounts })).toEqual(["busy", "billing 599 s"]);
  });

  it("shows a run that is refused while the account is disabled as the accounts say", () => {
    const accounts = (): Refusal => refusal(1_796_091_525_784, "billing");
    expect(replay("refused while the account is disabled", { accounts })).toEqual(["busy", "billing 598 s"]);
    expect(replay("refused while the account is disabled")).toEqual(["busy", "idle"]);
  });

  it("shows exhausted when every model refuses", () => {
    expect(replay("every model refuses")).toEqual(["busy", "billing open"]);
  });

  it.each([
    ["one turn", ["busy", "idle"]],
    ["a long wait, given up by the caller", ["busy", "rate_limit 300 s"]],
    ["an empty account", ["busy", "billing open"]],
  ])("needs no permission to read conversations: %s", (name, expected) => {
    expect(replay(name, { withHooks: false })).toEqual(expected);
  });
});

describe("runs", () => {
  it("keep the agent busy until the last one ends", () => {
    const activity = activityWith({ kind: "started", runId: "a" }, { kind: "started", runId: "b" });
    const end = { kind: "ended", succeeded: true, refusal: undefined } as const;
    activity.apply(signal({ ...end, runId: "a" }), NOW, NO_ACCOUNTS);
    expect(activity.statusAt(NOW).status).toBe("busy");
    activity.apply(signal({ ...end, runId: "b" }), NOW, NO_ACCOUNTS);
    expect(activity.statusAt(NOW).status).toBe("idle");
  });

  it("are not brought back by events that arrive after their end", () => {
    const activity = activityWith(
      { kind: "started" },
      { kind: "ended", succeeded: true, refusal: undefined },
      { kind: "progress", works: true },
    );
    expect(activity.statusAt(NOW).status).toBe("idle");
  });

  it("count when the plugin sees their middle only", () => {
    expect(activityWith({ kind: "progress", works: true }).statusAt(NOW).status).toBe("busy");
  });

  it("are not opened by calls of a model outside of runs, or by late refusals", () => {
    const facts = [
      { kind: "progress", works: true, isCall: true },
      { kind: "refused", refusal: refusal(NOW + MINUTE_MS) },
    ] as const;
    for (const fact of facts) expect(activityWith(fact).statusAt(NOW).status).toBe("idle");
  });

  it("count for ten minutes when the gateway takes the work and shows nothing of it", () => {
    const activity = activityWith({ kind: "taken" });
    expect(activity.statusAt(NOW + 10 * MINUTE_MS).status).toBe("busy");
    expect(activity.statusAt(NOW + 10 * MINUTE_MS + 1).status).toBe("idle");
  });

  it("stop counting after a silence, and count again with their next event", () => {
    const activity = activityWith({ kind: "started" });
    const later = NOW + LIMITS.silentRunMs + 1;
    expect(activity.statusAt(later).status).toBe("idle");
    expect([activity.dropSilent(NOW), activity.dropSilent(later)]).toEqual([[], ["run"]]);
    activity.apply(signal({ kind: "progress", works: true }), later, NO_ACCOUNTS);
    expect(activity.statusAt(later).status).toBe("busy");
  });

  it("may be silent for longer while a tool runs", () => {
    const activity = activityWith({ kind: "started" }, { kind: "progress", works: true, inTool: true });
    expect(activity.statusAt(NOW + 2 * LIMITS.silentRunMs).status).toBe("busy");
    expect(activity.statusAt(NOW + 7 * LIMITS.silentRunMs).status).toBe("idle");
  });

  it("make steps of progress that only grow, due later while a tool runs", () => {
    const activity = activityWith({ kind: "started" }, { kind: "progress", works: true });
    const { step, nextWithinMs } = activity.progress;
    activity.apply(signal({ kind: "progress", works: true, inTool: true }), NOW, NO_ACCOUNTS);
    expect(activity.progress.step).toBeGreaterThan(step);
    expect(activity.progress.nextWithinMs).toBeGreaterThan(nextWithinMs);
  });

  it("are at most 1,000, however many never end", () => {
    const activity = new AgentActivity(LIMITS);
    for (let run = 0; run < 3_000; run += 1) {
      activity.apply(signal({ kind: "started", runId: String(run) }), NOW, NO_ACCOUNTS);
    }
    expect(activity.runsAt(NOW)).toBe(1_000);
  });
});

describe("an exhaustion", () => {
  const failed = (found: Refusal): SignalFact => ({ kind: "ended", succeeded: false, refusal: found });

  it("ends at its deadline", () => {
    const activity = activityWith({ kind: "started" }, failed(refusal(NOW + MINUTE_MS)));
    expect(activity.statusAt(NOW + MINUTE_MS - 1).status).toBe("exhausted");
    expect(activity.statusAt(NOW + MINUTE_MS).status).toBe("idle");
  });

  it("lasts over runs that are refused, and ends when the provider responds", () => {
    const activity = activityWith({ kind: "started" }, failed(refusal(NOW + MINUTE_MS)), {
      kind: "started",
      runId: "b",
    });
    expect(activity.statusAt(NOW).status).toBe("exhausted");
    activity.apply(signal({ kind: "progress", works: true, runId: "b" }), NOW, NO_ACCOUNTS);
    expect(activity.statusAt(NOW).status).toBe("busy");
  });

  it("without a deadline ends when the service recovers the agent", () => {
    const activity = activityWith({ kind: "started" }, failed(refusal(undefined)));
    expect(activity.statusAt(NOW + 100 * MINUTE_MS).status).toBe("exhausted");
    activity.recovered();
    expect(activity.statusAt(NOW).status).toBe("idle");
  });

  it("ends when the first of several accounts is free", () => {
    const activity = activityWith(
      { kind: "started" },
      { kind: "refused", refusal: refusal(NOW + 10 * MINUTE_MS, "billing") },
      { kind: "refused", refusal: refusal(NOW + MINUTE_MS) },
      failed(refusal(NOW + 5 * MINUTE_MS)),
    );
    expect(activity.statusAt(NOW)).toMatchObject({ reason: "rate_limit", until: NOW + MINUTE_MS });
  });

  it("does not follow from a turn that its caller gave up", () => {
    const activity = activityWith(
      { kind: "started" },
      { kind: "refused", refusal: refusal(NOW + MINUTE_MS) },
      { kind: "ended", succeeded: false, refusal: undefined },
    );
    expect(activity.statusAt(NOW).status).toBe("idle");
  });
});

describe("a call", () => {
  it("lasts for a while after its last turn", () => {
    const activity = activityWith(
      { kind: "started", isVoice: true },
      { kind: "ended", succeeded: true, refusal: undefined, isVoice: true },
    );
    expect(activity.statusAt(NOW + LIMITS.callEndMs - 1).status).toBe("on_call");
    expect(activity.statusAt(NOW + LIMITS.callEndMs).status).toBe("idle");
  });
});
