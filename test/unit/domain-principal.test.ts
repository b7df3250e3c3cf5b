import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { EVERY_AGENT, predicateOf } from "../../src/domain/filter.ts";
import {
  type AgentScope,
  actorOf,
  isWithin,
  narrowFilter,
  ROLES,
  requesterOf,
  transitionWithin,
} from "../../src/domain/principal.ts";
import { FakeLog } from "../support/fake-log.ts";

const name = fc.constantFrom("a", "b", "c", "d");
const names = fc.array(name, { maxLength: 3 });
const scope: fc.Arbitrary<AgentScope> = fc.oneof(
  names.map((agentIds) => ({ kind: "agents", agentIds: new Set(agentIds) }) as const),
  name.map((clawIdentifier) => ({ kind: "claw", clawIdentifier }) as const),
);

describe("a narrowed filter", () => {
  test("passes agents that are requested and within the scope, and no others", () => {
    fc.assert(
      fc.property(scope, names, names, name, name, (within, agentIds, clawIdentifiers, agentId, clawIdentifier) => {
        const asked = { ...EVERY_AGENT, agentIds, clawIdentifiers };
        const agent = { agentId, clawIdentifier, userId: 1n, status: "idle" } as const;
        const passes = predicateOf(narrowFilter(within, asked))(agent);
        expect(passes).toBe(predicateOf(asked)(agent) && isWithin(within, agent));
      }),
    );
  });

  test("is the requested filter without a scope", () => {
    expect(narrowFilter(undefined, EVERY_AGENT)).toBe(EVERY_AGENT);
  });
});

describe("a transition as shown to a caller", () => {
  const claw: AgentScope = { kind: "claw", clawIdentifier: "claw-1" };
  const log = new FakeLog();
  const id = log.create("a", "claw-1");
  log.change(id, { status: "busy" });
  log.change(id, { clawIdentifier: "claw-2" });
  log.change(id, { clawIdentifier: "claw-1" });
  log.delete(id);

  test("shows a claw no claw name but its own", () => {
    const told = log.transitions.map((one) => transitionWithin(claw, one));
    expect(told.map(({ fromClaw, toClaw }) => [fromClaw, toClaw])).toEqual([
      [null, "claw-1"],
      ["claw-1", "claw-1"],
      ["claw-1", ""],
      ["", "claw-1"],
      ["claw-1", null],
    ]);
    for (const [index, { fromClaw, toClaw, ...rest }] of told.entries()) {
      expect(log.transitions[index]).toMatchObject(rest);
    }
  });

  test("is the same object when nothing is hidden", () => {
    const [created, changed] = log.transitions;
    for (const one of [created, changed]) if (one !== undefined) expect(transitionWithin(claw, one)).toBe(one);
    const agents: AgentScope = { kind: "agents", agentIds: new Set(["a"]) };
    for (const one of log.transitions) expect(transitionWithin(agents, one)).toBe(one);
  });
});

test.each([
  ["agent", "agent:x"],
  ["service", "service:x"],
  ["anyone", "service:x"],
  ["admin", "user:x"],
  ["viewer", "user:x"],
] as const)("the role %s acts as %s", (role, actor) => {
  expect(actorOf({ role, name: "x" })).toBe(actor);
});

test("no two principals share request_ids, whatever their names are", () => {
  const names = ["x", "service:x", ":x", "x:", "anonymous"];
  const principals = [...ROLES, "anyone" as const].flatMap((role) => names.map((name) => ({ role, name })));
  expect(new Set(principals.map(requesterOf)).size).toBe(principals.length);
});
