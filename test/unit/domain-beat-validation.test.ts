import { describe, expect, it } from "vitest";
import type { AgentStatus } from "../../common/contract/enum-names.ts";
import { SESSION_STARTS } from "../../common/contract/enum-names.ts";
import { type BeatFields, readBeat } from "../../src/domain/beat-validation.ts";

const NOW = 1_790_000_000_000_000;
const BILLING = { reason: "billing", recovery: {} } as const;

describe("a beat", () => {
  const ALIVE: BeatFields = {
    agentId: "scribe-7",
    status: undefined,
    exhaustion: undefined,
    leaving: false,
    knownRevision: undefined,
    start: undefined,
  };

  function read(fields: Partial<BeatFields>) {
    return readBeat(3, { ...ALIVE, ...fields }, NOW);
  }

  function refusalOf(fields: Partial<BeatFields>): string[] {
    const parsed = read(fields);
    if (!("refusal" in parsed)) return [];
    expect(parsed.refusal.reason).toBe("INVALID_FIELD");
    return parsed.refusal.violations.map(({ field, description }) => `${field} ${description}`);
  }

  it("may have no other field than the agent's id", () => {
    expect(read({})).toEqual({
      agentId: "scribe-7",
      leaving: false,
      beat: { report: undefined, knownRevision: undefined },
    });
  });

  it.each(SESSION_STARTS)("may start a session with %s", (start) => {
    expect(read({ start })).toMatchObject({ start });
    expect(read({ start, leaving: true })).toMatchObject({ leaving: true, start });
    expect(read({ start, status: "exhausted", exhaustion: BILLING })).toMatchObject({ start });
  });

  it("rejects a session start that is not in the contract", () => {
    expect(refusalOf({ start: "unknown" })).toEqual(["beats[3].session_start must be a session start of the contract"]);
  });

  it.each<AgentStatus>(["idle", "on_call", "busy"])("may report %s", (status) => {
    expect(read({ status, knownRevision: 7n })).toMatchObject({ beat: { report: status, knownRevision: 7n } });
    expect(refusalOf({ status, exhaustion: BILLING })).toEqual([
      "beats[3].exhaustion must not be set without the status EXHAUSTED",
    ]);
  });

  it("requires an exhaustion with the status exhausted, and only then", () => {
    expect(read({ status: "exhausted", exhaustion: BILLING })).toMatchObject({
      beat: { report: { exhausted: { reason: "billing" } } },
    });
    expect(refusalOf({ status: "exhausted" })).toEqual(["beats[3].exhaustion must be set with the status EXHAUSTED"]);
    expect(refusalOf({ exhaustion: BILLING })).toEqual([
      "beats[3].exhaustion must not be set without the status EXHAUSTED",
    ]);
  });

  it("rejects the status offline", () => {
    expect(refusalOf({ status: "offline" })).toEqual(["beats[3].status must not be OFFLINE: set leaving instead"]);
  });

  it("may be a goodbye without a status and without an exhaustion", () => {
    expect(read({ leaving: true, knownRevision: 7n })).toMatchObject({ leaving: true, beat: { report: undefined } });
    expect(refusalOf({ leaving: true, status: "idle", exhaustion: BILLING })).toEqual([
      "beats[3].status must not be set with leaving",
      "beats[3].exhaustion must not be set with leaving",
    ]);
    expect(refusalOf({ leaving: true, status: "offline" })).toEqual(["beats[3].status must not be set with leaving"]);
  });

  it("rejects a status that is not in the contract", () => {
    expect(refusalOf({ status: "unknown" })).toEqual(["beats[3].status must be a status of the contract"]);
  });

  it("reports all violations under its own path, and keeps the id as it was sent", () => {
    expect(read({ agentId: "\n", knownRevision: -1n })).toMatchObject({ agentId: "\n" });
    expect(refusalOf({ agentId: "\n", knownRevision: -1n })).toEqual([
      "beats[3].agent_id must not hold control characters",
      "beats[3].known_revision must be greater than or equal to 0",
    ]);
  });
});
