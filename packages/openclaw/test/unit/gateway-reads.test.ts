import { describe, expect, it } from "vitest";
import { agentIdsOf } from "../../../../common/openclaw/gateway-agents.ts";
import { exhaustionOfAccounts, providersOf } from "../../src/gateway/accounts.ts";
import { signalOfEvent, signalOfHook } from "../../src/gateway/run-signals.ts";

const NOW = 1_000_000;

describe("the agents of a configuration", () => {
  it.each([
    [{}, ["main"]],
    [undefined, ["main"]],
    [{ agents: { entries: { Main: {}, bob: {} } } }, ["main", "bob"]],
    [{ agents: { list: [{ id: "a" }, { id: "b" }, {}] } }, ["a", "b"]],
  ])("%j are %j", (config, ids) => {
    expect(agentIdsOf(config)).toEqual(ids);
  });
});

describe("the accounts of an agent", () => {
  const config = {
    agents: {
      defaults: { model: { primary: "one/m" } },
      entries: { bob: { model: { primary: "one/m", fallbacks: ["two/m", "one/n"] } }, eve: { model: "two/m" } },
    },
  };

  it("are those of its models and fallbacks", () => {
    expect(["bob", "eve", "main"].map((id) => providersOf(config, id))).toEqual([["one", "two"], ["two"], ["one"]]);
  });

  const usageStats = {
    "inline-api-key:one": { disabledUntil: NOW + 600, disabledReason: "billing" },
    "inline-api-key:two": { cooldownUntil: NOW + 300, cooldownReason: "rate_limit" },
    "inline-api-key:expired": { cooldownUntil: NOW - 1, cooldownReason: "rate_limit" },
    "inline-api-key:login": { disabledUntil: NOW + 100, disabledReason: "auth_permanent" },
    spare: { blockedUntil: NOW + 200, blockedReason: "subscription_limit" },
  };

  it.each([
    [["one"], "billing", 600],
    [["one", "two"], "rate_limit", 300],
    [["one", "login"], "billing", 600],
  ])("%j are exhausted until the first is free", (providers, reason, inMs) => {
    expect(exhaustionOfAccounts({ usageStats }, providers, NOW)).toMatchObject({ reason, until: NOW + inMs });
  });

  it.each([[["one", "free"]], [["one", "expired"]], [["login"]], [[]]])("%j are not exhausted", (providers) => {
    expect(exhaustionOfAccounts({ usageStats }, providers, NOW)).toBeUndefined();
  });

  it("are its profiles, if it has some", () => {
    const profiles = { spare: { provider: "one" } };
    const found = exhaustionOfAccounts({ usageStats, profiles }, ["one"], NOW);
    expect(found).toMatchObject({ reason: "rate_limit", until: NOW + 200 });
    expect(
      exhaustionOfAccounts({ usageStats, profiles: { ...profiles, other: { provider: "one" } } }, ["one"], NOW),
    ).toBe(undefined);
  });
});

describe("events of a gateway", () => {
  it.each([
    undefined,
    null,
    7,
    "text",
    {},
    [],
    { runId: "r" },
    { runId: "r", agentId: "a" },
    { stream: "lifecycle" },
  ])("that are %j say nothing", (event) => {
    expect(signalOfEvent(event, NOW)).toBeUndefined();
    expect(signalOfHook("llm_output", event, event, NOW)).toBeUndefined();
  });

  it("that throw when they are read say nothing", () => {
    const hostile = new Proxy(
      {},
      {
        get: () => {
          throw new Error("no");
        },
      },
    );
    expect(signalOfEvent(hostile, NOW)).toBeUndefined();
  });

  it.each([
    ["agent:Bob:subagent:1", "bob", false],
    ["agent:bob:cron:job:run:1", "bob", false],
    ["agent:bob:voice:call-1", "bob", true],
  ])("of the session %s belong to its agent", (sessionKey, agentId, isVoice) => {
    const event = { runId: "r", sessionKey, stream: "lifecycle", data: { phase: "start" } };
    expect(signalOfEvent(event, NOW)).toMatchObject({ kind: "started", agentId, isVoice });
  });
});
