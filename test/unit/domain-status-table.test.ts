import { describe, expect, it } from "vitest";
import { AGENT_STATUSES, type AgentStatus, type TransitionCause } from "../../common/contract/enum-names.ts";
import type { AgentCondition } from "../../src/domain/agent.ts";
import { Refusal } from "../../src/domain/errors.ts";
import {
  judgeBeat,
  judgeGoodbye,
  judgeLeaseEnd,
  judgeRecovery,
  judgeStatusRequest,
  STATUS_TABLE,
  type StatusChange,
} from "../../src/domain/status-machine.ts";
import { applyChange, NEW_AGENT } from "../support/apply-change.ts";

const NOW = 1_790_000_000_000_000;
const HOUR = 3_600_000_000;

/** The statuses, with agents distinguished by their history. */
const CONDITIONS: readonly { readonly name: string; readonly agent: AgentCondition }[] = [
  { name: "idle", agent: NEW_AGENT },
  { name: "on_call", agent: { ...NEW_AGENT, status: "on_call" } },
  { name: "busy", agent: { ...NEW_AGENT, status: "busy" } },
  { name: "exhausted", agent: { ...NEW_AGENT, status: "exhausted", exhaustion: exhaustionUntil(NOW + HOUR) } },
  { name: "exhausted, recovery due", agent: { ...NEW_AGENT, status: "exhausted", exhaustion: exhaustionUntil(NOW) } },
  { name: "offline", agent: { ...NEW_AGENT, status: "offline" } },
  {
    name: "offline and exhausted",
    agent: { ...NEW_AGENT, status: "offline", exhaustion: exhaustionUntil(NOW + HOUR) },
  },
  { name: "offline, recovery due", agent: { ...NEW_AGENT, status: "offline", exhaustion: exhaustionUntil(NOW) } },
];

function exhaustionUntil(recoveryAt: number) {
  return { reason: "rate_limit", exhaustedAt: NOW - HOUR, recoveryAt } as const;
}

const WORKING = ["idle", "on_call", "busy"] as const;
const NEWS = [
  { name: "no deadline", news: { reason: "rate_limit" } },
  { name: "another deadline", news: { reason: "rate_limit", recoveryAt: NOW + 2 * HOUR } },
  { name: "another reason", news: { reason: "billing", retryAfterMs: 5_000 } },
] as const;

interface Input {
  readonly name: string;
  readonly cause: TransitionCause;
  judge(agent: AgentCondition): StatusChange | undefined;
}

/** A beat of an agent without a hold either changes it or renews its lease. */
function beat(agent: AgentCondition, report: Parameters<typeof judgeBeat>[1]["report"]): StatusChange | undefined {
  const verdict = judgeBeat(agent, { report, knownRevision: undefined }, NOW, 0.5);
  expect(["change", "renew"]).toContain(verdict.kind);
  return verdict.kind === "change" ? verdict : undefined;
}

function word(
  agent: AgentCondition,
  status: Parameters<typeof judgeStatusRequest>[1]["status"],
): StatusChange | undefined {
  try {
    return judgeStatusRequest(agent, { status, holdMs: undefined }, NOW, 0.5);
  } catch (error) {
    expect(error).toBeInstanceOf(Refusal);
    return undefined;
  }
}

const INPUTS: readonly Input[] = [
  ...WORKING.map((status): Input => ({ name: `report ${status}`, cause: "report", judge: (a) => beat(a, status) })),
  ...NEWS.map(
    ({ name, news }): Input => ({
      name: `report exhausted, ${name}`,
      cause: "report",
      judge: (a) => beat(a, { exhausted: news }),
    }),
  ),
  { name: "beat without a status", cause: "heartbeat", judge: (a) => beat(a, undefined) },
  ...[...WORKING, "offline" as const].map(
    (status): Input => ({ name: `service says ${status}`, cause: "service", judge: (a) => word(a, status) }),
  ),
  ...NEWS.map(
    ({ name, news }): Input => ({
      name: `service says exhausted, ${name}`,
      cause: "service",
      judge: (a) => word(a, { exhausted: news }),
    }),
  ),
  { name: "lease end", cause: "lease_expired", judge: judgeLeaseEnd },
  { name: "goodbye", cause: "goodbye", judge: judgeGoodbye },
  { name: "recovery", cause: "recovery", judge: (a) => judgeRecovery(a, NOW) },
];

const CASES = CONDITIONS.flatMap(({ name, agent }) => INPUTS.map((input) => ({ from: name, agent, input })));

/** All observed steps of the machine from one status to another: `from > to: cause`. */
function waysTaken(): Set<string> {
  return new Set(
    CASES.flatMap(({ agent, input }) => {
      const change = input.judge(agent);
      return change === undefined ? [] : [`${agent.status} > ${change.status}: ${change.cause}`];
    }),
  );
}

const CELLS = AGENT_STATUSES.flatMap((from) => AGENT_STATUSES.map((to) => ({ from, to })));
const CAUSES = ["report", "heartbeat", "service", "lease_expired", "goodbye", "recovery"] as const;

describe("the status table", () => {
  it("equals that of the domain", () => {
    const domain: Record<AgentStatus, Record<AgentStatus, readonly TransitionCause[]>> = {
      idle: {
        idle: [],
        on_call: ["report", "service"],
        busy: ["report", "service"],
        exhausted: ["report", "service"],
        offline: ["lease_expired", "goodbye", "service"],
      },
      on_call: {
        idle: ["report", "service"],
        on_call: [],
        busy: ["report", "service"],
        exhausted: ["report", "service"],
        offline: ["lease_expired", "goodbye", "service"],
      },
      busy: {
        idle: ["report", "service"],
        on_call: ["report", "service"],
        busy: [],
        exhausted: ["report", "service"],
        offline: ["lease_expired", "goodbye", "service"],
      },
      exhausted: {
        idle: ["recovery", "report", "service"],
        on_call: ["report"],
        busy: ["report"],
        exhausted: ["report", "service"],
        offline: ["lease_expired", "goodbye", "service"],
      },
      offline: {
        idle: ["report", "heartbeat"],
        on_call: ["report"],
        busy: ["report"],
        exhausted: ["report", "heartbeat"],
        offline: ["service", "recovery"],
      },
    };
    expect(STATUS_TABLE).toEqual(domain);
  });

  describe.each(CELLS)("$from > $to", ({ from, to }) => {
    it.each(CAUSES)("by %s: happens only where the table allows it", (cause) => {
      const allowed = STATUS_TABLE[from][to].includes(cause);
      expect(waysTaken().has(`${from} > ${to}: ${cause}`)).toBe(allowed);
    });
  });

  it("has exactly the causes of the machine", () => {
    expect(new Set(CELLS.flatMap(({ from, to }) => STATUS_TABLE[from][to]))).toEqual(new Set(CAUSES));
  });
});

const CHANGES = CASES.flatMap(({ from, agent, input }) => {
  const change = input.judge(agent);
  return change === undefined ? [] : [{ from, agent, input, change }];
});

it.each(CHANGES)("$from, $input.name: an allowed transition with consistent fields", ({
  agent,
  input,
  change,
}) => {
  expect(change.cause).toBe(input.cause);
  const { status: from } = agent;
  if (from === "unknown") throw new TypeError("no case has such a status");
  expect(STATUS_TABLE[from][change.status]).toContain(change.cause);
  const { status, exhaustion } = applyChange(agent, change, { now: NOW, revision: 7n });
  expect({ status, exhaustion }).not.toEqual({ status: agent.status, exhaustion: agent.exhaustion });
  if (status === "exhausted") expect(exhaustion).not.toBeNull();
  if (status !== "exhausted" && status !== "offline") expect(exhaustion).toBeNull();
});

describe("a service may not set", () => {
  it.each(WORKING)("an offline agent to %s", (status) => {
    const offline: AgentCondition = { ...NEW_AGENT, status: "offline" };
    expect(() => judgeStatusRequest(offline, { status, holdMs: undefined }, NOW, 0.5)).toThrow(
      expect.objectContaining({ reason: "AGENT_OFFLINE" }),
    );
  });

  it.each(["on_call", "busy"] as const)("an exhausted agent to %s; the error has the time of recovery", (status) => {
    const recoveryAt = Date.parse("2027-01-02T03:04:05.678Z") * 1_000 + 901;
    const exhausted: AgentCondition = { ...NEW_AGENT, status: "exhausted", exhaustion: exhaustionUntil(recoveryAt) };
    expect(() => judgeStatusRequest(exhausted, { status, holdMs: undefined }, NOW, 0.5)).toThrow(
      expect.objectContaining({ reason: "AGENT_EXHAUSTED", metadata: { recoveryAt: "2027-01-02T03:04:05.678901Z" } }),
    );
  });

  it.each(["on_call", "busy"] as const)("an offline agent with an exhaustion to %s", (status) => {
    const agent: AgentCondition = { ...NEW_AGENT, status: "offline", exhaustion: exhaustionUntil(NOW + HOUR) };
    expect(() => judgeStatusRequest(agent, { status, holdMs: undefined }, NOW, 0.5)).toThrow(
      expect.objectContaining({ reason: "AGENT_OFFLINE" }),
    );
  });
});
