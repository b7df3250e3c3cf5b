import type { Report } from "harborforge-agents-client/internal";
import { describe, expect, it } from "vitest";
import { AgentScript } from "../../src/simulate/agent-script.ts";
import { readClawCommand, readClawEvent } from "../../src/simulate/claw-messages.ts";
import { planFleet } from "../../src/simulate/fleet-plan.ts";
import { createRandom, pick, seedFor } from "../../src/simulate/seeded-random.ts";

const script = (seed: number, emptyAccount = false) =>
  new AgentScript({ random: createRandom(seed), speed: 1, rateLimitShare: 0.2, emptyAccount });

/** Its reports over so many seconds, with its recoveries as the server would send them. */
function play(agent: AgentScript, seconds: number): Report[] {
  const said: Report[] = [];
  let recoversAt = Number.POSITIVE_INFINITY;
  agent.observe("idle", undefined, 0);
  for (let now = 0; now < seconds * 1_000; now += 50) {
    if (now >= recoversAt) {
      recoversAt = Number.POSITIVE_INFINITY;
      agent.observe("idle", undefined, now);
    }
    const report = agent.tick(now);
    if (report === undefined) continue;
    said.push(report);
    if (typeof report === "object") recoversAt = now + (report.exhausted.retryAfterMs ?? 1e9);
  }
  return said;
}

describe("an agent of a simulation", () => {
  it("reports nothing before the server has sent its status", () => {
    expect(script(1).tick(1e9)).toBeUndefined();
  });

  it("takes calls, works, and hits the rate limit, the same with the same seed", () => {
    const said = play(script(7), 600);
    expect(said).toEqual(play(script(7), 600));
    expect(said).not.toEqual(play(script(8), 600));
    expect(said).toEqual(expect.arrayContaining(["on_call", "busy", "idle"]));
    const limits = said.filter((report) => typeof report === "object");
    expect(limits.length).toBeGreaterThan(2);
    for (const { exhausted } of limits) {
      expect(exhausted.reason).toBe("rate_limit");
      expect(exhausted.retryAfterMs).toBeGreaterThanOrEqual(3_000);
      expect(exhausted.retryAfterMs).toBeLessThanOrEqual(9_000);
    }
  });

  it("works when it is called", () => {
    const agent = script(1);
    agent.observe("idle", undefined, 0);
    agent.observe("on_call", undefined, 100);
    expect(agent.tick(1_000)).toBeUndefined();
    expect(agent.tick(3_100)).toBe("busy");
  });

  it("runs out of money once, without a deadline, until the account is topped up", () => {
    const said = play(script(3, true), 600);
    const emptyAt = said.findIndex((report) => typeof report === "object" && report.exhausted.reason === "billing");
    expect(said[emptyAt]).toEqual({ exhausted: { reason: "billing" } });
    expect(said[emptyAt + 1]).toBe("idle");
    expect(said.filter((report) => typeof report === "object" && report.exhausted.reason === "billing")).toHaveLength(
      1,
    );
  });

  it("does not run out again when it was out of money from the start", () => {
    const agent = script(3, true);
    agent.observe("exhausted", "billing", 0);
    expect(play(agent, 600)).not.toContainEqual({ exhausted: { reason: "billing" } });
  });

  it("stays exhausted by a rate limit until the server ends it", () => {
    const agent = script(1);
    agent.observe("exhausted", "rate_limit", 0);
    expect(agent.tick(1e9)).toBeUndefined();
  });
});

describe("the random numbers", () => {
  it("are uniform enough, and independent for each part", () => {
    const random = createRandom(seedFor(1, "a"));
    const mean = Array.from({ length: 10_000 }, random).reduce((sum, one) => sum + one, 0) / 10_000;
    expect(mean).toBeCloseTo(0.5, 1);
    expect(seedFor(1, "demo-claw-a-01")).not.toBe(seedFor(1, "demo-claw-a-02"));
    expect(pick(random, [])).toBeUndefined();
  });
});

describe("the plan of a fleet", () => {
  it("is the same claws and agents each time", () => {
    expect(planFleet("demo", 3, 6).map(({ name, agentIds }) => [name, ...agentIds])).toEqual([
      ["demo-claw-a", "demo-claw-a-01", "demo-claw-a-02"],
      ["demo-claw-b", "demo-claw-b-01", "demo-claw-b-02"],
      ["demo-claw-c", "demo-claw-c-01", "demo-claw-c-02"],
    ]);
  });

  it("distributes agents evenly, and numbers claws when letters do not suffice", () => {
    const plans = planFleet("sim", 30, 10_000);
    expect(plans.map(({ name }) => name)).toEqual(expect.arrayContaining(["sim-claw-01", "sim-claw-30"]));
    expect(new Set(plans.flatMap(({ agentIds }) => agentIds)).size).toBe(10_000);
    expect(new Set(plans.map(({ agentIds }) => agentIds.length))).toEqual(new Set([333, 334]));
    expect(plans[0]?.agentIds[0]).toBe("sim-claw-01-001");
  });
});

describe("messages between a simulation and its claws", () => {
  it("are read only when they are complete", () => {
    const start = {
      kind: "start",
      target: { addresses: ["http://a:1"], token: "t", tls: { ca: ["pem"], cert: "c", key: "k" } },
      clawIdentifier: "c",
      instanceId: "i",
      agentIds: ["a"],
      seed: 1,
      speed: 1,
      rateLimitShare: 0.1,
      emptyAccounts: ["a"],
    };
    expect(readClawCommand(start)).toEqual(start);
    expect(readClawCommand({ ...start, agentIds: [1] })).toBeUndefined();
    expect(readClawCommand({ ...start, target: {} })).toBeUndefined();
    expect(readClawCommand({ kind: "stop" })).toEqual({ kind: "stop" });
    expect(readClawCommand("stop")).toBeUndefined();
    expect(readClawEvent({ kind: "refused", agentId: "a", reason: "WRONG_CLAW" })).toMatchObject({ agentId: "a" });
    expect(readClawEvent({ kind: "refused", agentId: "a" })).toBeUndefined();
    expect(readClawEvent(null)).toBeUndefined();
  });
});
