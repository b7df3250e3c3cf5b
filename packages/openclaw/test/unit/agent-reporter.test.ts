import type { AgentHandle, AgentStatusEvent, ReportError, ReportOutcome } from "harborforge-agents-client";
import { describe, expect, it } from "vitest";
import type { Signal, SignalFact } from "../../src/activity/signal.ts";
import { PluginLog } from "../../src/gateway/log.ts";
import { AgentReporter } from "../../src/reporting/agent-reporter.ts";

const NOW = Date.now();
const MINUTE_MS = 60_000;

/** A reporter with a handle that notes its reports. */
function scene() {
  const reports: string[] = [];
  const listeners = new Map<string, (event: never) => void>();
  const report = async (text: string): Promise<ReportOutcome> => {
    reports.push(text);
    return "applied";
  };
  const state: { presence: AgentHandle["presence"] } = { presence: "beating" };
  const handle: AgentHandle = {
    agentId: "claw-1/main",
    status: undefined,
    exhaustion: undefined,
    get presence() {
      return state.presence;
    },
    idle: () => report("idle"),
    busy: () => report("busy"),
    onCall: () => report("on_call"),
    exhausted: ({ reason, retryAfterMs }) => report(`${reason} ${retryAfterMs}`),
    leave: () => report("leave"),
    claim: () => void reports.push("claim"),
    on: (name, listener) => {
      listeners.set(name, listener);
      return () => listeners.delete(name);
    },
  };
  const lines: string[] = [];
  const write = (line: string): void => void lines.push(line);
  const reporter = new AgentReporter("main", handle, {
    limits: { silentRunMs: 60 * MINUTE_MS, callEndMs: 0 },
    log: new PluginLog({ info: write, warn: write, error: write }),
    earlier: undefined,
    accounts: () => undefined,
    onRejected: () => undefined,
  });
  return {
    reporter,
    reports,
    lines,
    state,
    apply: (fact: SignalFact, now = NOW) => {
      const signal: Signal = { agentId: "main", runId: "run", isVoice: false, ...fact };
      reporter.apply(signal, now);
    },
    /** The service has another status for the agent. */
    sets: (status: AgentStatusEvent["status"]) => {
      const event: AgentStatusEvent = { agentId: "claw-1/main", status, exhaustion: undefined, revision: 1n };
      listeners.get("status")?.(event as never);
    },
    supersede: (error: Pick<ReportError, "message">) => listeners.get("superseded")?.(error as never),
  };
}

const ended: SignalFact = { kind: "ended", succeeded: true, refusal: undefined };

describe("a reporter", () => {
  it("reports each status once", () => {
    const { reporter, reports, apply } = scene();
    reporter.update(NOW);
    reporter.update(NOW + 1_000);
    apply({ kind: "taken" });
    apply({ kind: "started" });
    apply(ended);
    expect(reports).toEqual(["idle", "busy", "idle"]);
  });

  it("reports nothing while the service rejects the agent, and its status when that is over", () => {
    const { reporter, reports, state, apply } = scene();
    state.presence = "refused";
    for (let second = 0; second < 100; second += 1) reporter.update(NOW + second * 1_000);
    apply({ kind: "started" });
    expect(reports).toEqual([]);
    state.presence = "beating";
    reporter.update(NOW + 100_000);
    expect(reports).toEqual(["busy"]);
  });

  it("leaves a service's claim for a minute, then reports what the gateway shows", () => {
    const { reporter, reports, sets } = scene();
    reporter.update(NOW);
    sets("on_call");
    reporter.update(NOW + MINUTE_MS / 2);
    expect(reports).toEqual(["idle"]);
    reporter.update(NOW + 2 * MINUTE_MS);
    expect(reports).toEqual(["idle", "idle"]);
  });

  it("reports the work of a claim at once", () => {
    const { reporter, reports, sets, apply } = scene();
    reporter.update(NOW);
    sets("on_call");
    apply({ kind: "taken" });
    expect(reports).toEqual(["idle", "busy"]);
  });

  it("does not correct an exhaustion that a service set", () => {
    const { reporter, reports, sets } = scene();
    reporter.update(NOW);
    sets("exhausted");
    reporter.update(NOW + 10 * MINUTE_MS);
    expect(reports).toEqual(["idle"]);
  });

  it("claims an agent again five minutes after another process took it", () => {
    const { reporter, reports, lines, supersede } = scene();
    reporter.update(NOW);
    supersede({ message: "taken over" });
    reporter.update(NOW + MINUTE_MS);
    expect(reports).toEqual(["idle"]);
    reporter.update(NOW + 6 * MINUTE_MS);
    expect(reports).toEqual(["idle", "claim", "idle"]);
    expect(lines).toEqual([expect.stringContaining("agent.superseded")]);
  });

  it("reports a deadline again only when it moves", () => {
    const { reports, apply } = scene();
    const refused = (until: number): SignalFact => ({
      kind: "ended",
      succeeded: false,
      refusal: { reason: "rate_limit", until, evidence: "test" },
    });
    apply(refused(NOW + MINUTE_MS));
    apply(refused(NOW + MINUTE_MS + 500));
    apply(refused(NOW + 3 * MINUTE_MS));
    expect(reports).toEqual(["rate_limit 60000", "rate_limit 180000"]);
  });
});
