import { describe, expect, it } from "vitest";
import type { AgentStatus } from "../../src/domain/agent.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { readFields } from "../../src/domain/validation.ts";
import { type BeatFields, readBeat, readFilter, readServiceWord } from "../../src/domain/validation-agent.ts";

const NOW = 1_790_000_000_000_000;
const BILLING = { reason: "billing", recovery: {} } as const;

function violationsOf(read: () => unknown): string[] {
  try {
    read();
  } catch (error) {
    if (error instanceof Refusal) return error.violations.map(({ field, description }) => `${field} ${description}`);
    throw error;
  }
  return [];
}

describe("a beat", () => {
  const ALIVE: BeatFields = {
    agentId: "scribe-7",
    status: undefined,
    exhaustion: undefined,
    leaving: false,
    knownRevision: undefined,
  };

  function read(fields: Partial<BeatFields>) {
    return readBeat("beats[3]", { ...ALIVE, ...fields }, NOW);
  }

  function refusalOf(fields: Partial<BeatFields>): string[] {
    const parsed = read(fields);
    if (!("refusal" in parsed)) return [];
    expect(parsed.refusal.reason).toBe("INVALID_FIELD");
    return parsed.refusal.violations.map(({ field, description }) => `${field} ${description}`);
  }

  it("may say only that the agent is alive", () => {
    expect(read({})).toEqual({
      agentId: "scribe-7",
      leaving: false,
      beat: { report: undefined, knownRevision: undefined },
    });
  });

  it.each<AgentStatus>(["idle", "on_call", "busy"])("may report %s", (status) => {
    expect(read({ status, knownRevision: 7n })).toMatchObject({ beat: { report: status, knownRevision: 7n } });
    expect(refusalOf({ status, exhaustion: BILLING })).toEqual([
      "beats[3].exhaustion must not be set without the status EXHAUSTED",
    ]);
  });

  it("reports exhausted with its exhaustion, and only with that", () => {
    expect(read({ status: "exhausted", exhaustion: BILLING })).toMatchObject({
      beat: { report: { exhausted: { reason: "billing" } } },
    });
    expect(refusalOf({ status: "exhausted" })).toEqual(["beats[3].exhaustion must be set with the status EXHAUSTED"]);
    expect(refusalOf({ exhaustion: BILLING })).toEqual([
      "beats[3].exhaustion must not be set without the status EXHAUSTED",
    ]);
  });

  it("does not report offline", () => {
    expect(refusalOf({ status: "offline" })).toEqual([
      "beats[3].status must not be OFFLINE: an agent that goes says so by leaving",
    ]);
  });

  it("leaves alone, without a status and without an exhaustion", () => {
    expect(read({ leaving: true, knownRevision: 7n })).toMatchObject({ leaving: true, beat: { report: undefined } });
    expect(refusalOf({ leaving: true, status: "idle", exhaustion: BILLING })).toEqual([
      "beats[3].status must not be set with leaving",
      "beats[3].exhaustion must not be set with leaving",
    ]);
    expect(refusalOf({ leaving: true, status: "offline" })).toEqual(["beats[3].status must not be set with leaving"]);
  });

  it("tells all that is wrong with it, under its own path, and keeps the id as it was sent", () => {
    expect(read({ agentId: "\n", knownRevision: -1n })).toMatchObject({ agentId: "\n" });
    expect(refusalOf({ agentId: "\n", knownRevision: -1n })).toEqual([
      "beats[3].agent_id must not hold control characters",
      "beats[3].known_revision must not be negative",
    ]);
  });
});

describe("a service's word", () => {
  function read(fields: Partial<Parameters<typeof readServiceWord>[1]>) {
    const word = { status: undefined, exhaustion: undefined, hold: undefined, ...fields };
    return readFields((violations) => readServiceWord(violations, word, NOW));
  }

  it.each<AgentStatus>(["idle", "on_call", "busy", "offline"])("may be %s, without an exhaustion", (status) => {
    expect(read({ status })).toEqual({ status, holdMs: undefined });
    expect(violationsOf(() => read({ status, exhaustion: BILLING }))).toEqual([
      "exhaustion must not be set without the status EXHAUSTED",
    ]);
  });

  it("may be exhausted, with an exhaustion and a hold", () => {
    expect(read({ status: "exhausted", exhaustion: BILLING, hold: { seconds: 5n, nanos: 0 } })).toEqual({
      status: { exhausted: { reason: "billing" } },
      holdMs: 5_000,
    });
    expect(violationsOf(() => read({ status: "exhausted" }))).toEqual([
      "exhaustion must be set with the status EXHAUSTED",
    ]);
  });

  it("must have a status, and a hold within its range", () => {
    expect(violationsOf(() => read({ hold: { seconds: -1n, nanos: 0 } }))).toEqual([
      "hold must be from 0 to 1 hour",
      "status must be set",
    ]);
  });
});

describe("a filter", () => {
  const EMPTY = { agentIds: [], userIds: [], clawIdentifiers: [], statuses: [] };

  it("may be empty", () => {
    expect(readFields((violations) => readFilter(violations, "filter", EMPTY))).toEqual(EMPTY);
  });

  it("is taken as it is", () => {
    const filter = { agentIds: ["a", "b"], userIds: [1n], clawIdentifiers: ["c"], statuses: ["idle", "busy"] as const };
    expect(readFields((violations) => readFilter(violations, "filter", filter))).toEqual(filter);
  });

  it("names each wrong value by its path", () => {
    const filter = {
      agentIds: ["a", ""],
      userIds: [0n],
      clawIdentifiers: ["\u0000"],
      statuses: ["idle", undefined] as const,
    };
    expect(violationsOf(() => readFields((violations) => readFilter(violations, "filter", filter)))).toEqual([
      "filter.statuses[1] must not be UNSPECIFIED",
      "filter.agent_ids[1] must be set: 1 to 128 characters",
      "filter.user_ids[0] must be greater than 0",
      "filter.claw_identifiers[0] must not hold control characters",
    ]);
  });

  it.each(["agentIds", "userIds", "clawIdentifiers", "statuses"] as const)("holds at most 1,000 %s", (list) => {
    const values = { agentIds: "a", userIds: 1n, clawIdentifiers: "c", statuses: "idle" } as const;
    const filter = { ...EMPTY, [list]: new Array(1_001).fill(values[list]) };
    const field = `filter.${list.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`;
    expect(violationsOf(() => readFields((violations) => readFilter(violations, "filter", filter)))).toEqual([
      `${field} must hold at most 1000 values`,
    ]);
  });
});
