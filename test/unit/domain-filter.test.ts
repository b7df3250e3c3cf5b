import { describe, expect, it } from "vitest";
import { AGENT_STATUSES } from "../../common/contract/enum-names.ts";
import type { Transition } from "../../src/domain/agent.ts";
import {
  type AgentFilter,
  agentOf,
  changeType,
  EVERY_AGENT,
  type Filterable,
  predicateOf,
} from "../../src/domain/filter.ts";

const SCRIBE: Filterable = { agentId: "scribe-7", userId: 42n, clawIdentifier: "claw-a", status: "busy" };

const MOVED: Transition = {
  revision: 20n,
  id: 5n,
  agentId: "scribe-7",
  userId: 42n,
  fromStatus: "idle",
  toStatus: "busy",
  fromClaw: "claw-a",
  toClaw: "claw-b",
  cause: "service",
  actor: "service:calendar",
  occurredAt: 3_000,
  requestId: null,
  incidentId: null,
  previousRevision: 11n,
  wake: null,
  openWake: null,
  exhaustion: null,
  createdAt: 1_000,
  statusChangedAt: 3_000,
};
const CREATED: Transition = { ...MOVED, cause: "created", fromStatus: null, fromClaw: null, previousRevision: null };
const DELETED: Transition = { ...MOVED, cause: "deleted", toStatus: null, toClaw: null, statusChangedAt: 2_000 };

function passes(filter: Partial<AgentFilter>, agent: Filterable = SCRIBE): boolean {
  return predicateOf({ ...EVERY_AGENT, ...filter })(agent);
}

describe("a filter", () => {
  it("without conditions passes every agent", () => {
    for (const status of AGENT_STATUSES) expect(passes({}, { ...SCRIBE, status })).toBe(true);
  });

  it.each<[string, Partial<AgentFilter>, boolean]>([
    ["an agent id", { agentIds: ["scribe-7"] }, true],
    ["any of several agent ids", { agentIds: ["other", "scribe-7"] }, true],
    ["another agent id", { agentIds: ["scribe-70", "Scribe-7", ""] }, false],
    ["a user", { userIds: [42n] }, true],
    ["another user", { userIds: [43n, 0n] }, false],
    ["a claw", { clawIdentifiers: ["claw-b", "claw-a"] }, true],
    ["another claw", { clawIdentifiers: ["claw-b"] }, false],
    ["a status", { statuses: ["idle", "busy"] }, true],
    ["another status", { statuses: ["idle", "offline"] }, false],
    ["all fields", { agentIds: ["scribe-7"], userIds: [42n], clawIdentifiers: ["claw-a"], statuses: ["busy"] }, true],
    [
      "all fields but one",
      { agentIds: ["scribe-7"], userIds: [42n], clawIdentifiers: ["claw-a"], statuses: ["idle"] },
      false,
    ],
  ])("by %s", (_, filter, passed) => {
    expect(passes(filter)).toBe(passed);
  });
});

describe("the change type of a transition for a watcher", () => {
  it.each<[string, Transition, Partial<AgentFilter>, string | undefined]>([
    ["inside before and after", MOVED, {}, "updated"],
    ["inside before and after, by the agent", MOVED, { agentIds: ["scribe-7"] }, "updated"],
    ["inside before and after, by either status", MOVED, { statuses: ["idle", "busy"] }, "updated"],
    ["outside before and after", MOVED, { statuses: ["offline"] }, undefined],
    ["outside by the agent", MOVED, { agentIds: ["other"], statuses: ["busy"] }, undefined],
    ["into the filter by status", MOVED, { statuses: ["busy"] }, "entered"],
    ["out of the filter by status", MOVED, { statuses: ["idle"] }, "left"],
    ["into the filter by a move", MOVED, { clawIdentifiers: ["claw-b"] }, "entered"],
    ["out of the filter by a move", MOVED, { clawIdentifiers: ["claw-a"] }, "left"],
    [
      "never in: the claw before with the status after",
      MOVED,
      { clawIdentifiers: ["claw-a"], statuses: ["busy"] },
      undefined,
    ],
    [
      "never in: the claw after with the status before",
      MOVED,
      { clawIdentifiers: ["claw-b"], statuses: ["idle"] },
      undefined,
    ],
    ["created inside", CREATED, { statuses: ["busy"] }, "entered"],
    ["created inside a filter for everything", CREATED, {}, "entered"],
    ["created outside", CREATED, { statuses: ["idle"] }, undefined],
    ["deleted inside", DELETED, { statuses: ["idle"] }, "left"],
    ["deleted inside a filter for everything", DELETED, {}, "left"],
    ["deleted outside", DELETED, { statuses: ["busy"] }, undefined],
    [
      "only the exhaustion changed",
      { ...MOVED, fromStatus: "exhausted", toStatus: "exhausted" },
      { statuses: ["exhausted"] },
      "updated",
    ],
  ])("%s", (_, transition, filter, type) => {
    expect(changeType(transition, predicateOf({ ...EVERY_AGENT, ...filter }))).toBe(type);
  });
});

describe("the agent of a transition", () => {
  it("is the agent right after it", () => {
    expect(agentOf(MOVED)).toEqual({
      id: 5n,
      agentId: "scribe-7",
      userId: 42n,
      clawIdentifier: "claw-b",
      status: "busy",
      exhaustion: null,
      createdAt: 1_000,
      statusChangedAt: 3_000,
      revision: 20n,
    });
  });

  it("is the new agent for a creation", () => {
    expect(agentOf(CREATED)).toMatchObject({ status: "busy", clawIdentifier: "claw-b", revision: 20n });
  });

  it("is the agent right before it for a deletion, with its revision before", () => {
    const exhaustion = { reason: "billing", exhaustedAt: 1_500, recoveryAt: 9_000 } as const;
    expect(agentOf({ ...DELETED, fromStatus: "exhausted", exhaustion })).toEqual({
      id: 5n,
      agentId: "scribe-7",
      userId: 42n,
      clawIdentifier: "claw-a",
      status: "exhausted",
      exhaustion,
      createdAt: 1_000,
      statusChangedAt: 2_000,
      revision: 11n,
    });
  });

  it("does not exist for a transition with neither side", () => {
    expect(() => agentOf({ ...CREATED, toStatus: null, toClaw: null })).toThrow(TypeError);
  });
});
