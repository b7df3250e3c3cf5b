import { describe, expect, test } from "vitest";
import type { AgentRecord, ChangeRecord, TransitionRecord } from "../../src/cli/records/records.ts";
import { plainPaint } from "../../src/cli/terminal/paint.ts";
import { liveLines } from "../../src/cli/watch/live-table.ts";
import { WatchedAgents } from "../../src/cli/watch/watched-agents.ts";

const NOW_MS = 1_790_000_000_000;

function agent(number: number, fields: Partial<AgentRecord> = {}): AgentRecord {
  return {
    id: BigInt(number),
    userId: BigInt(number),
    agentId: `agent-${String(number).padStart(3, "0")}`,
    clawIdentifier: "claw-1",
    status: "idle",
    exhaustion: undefined,
    revision: BigInt(number),
    lastHeartbeat: undefined,
    exhaustedAt: undefined,
    createdAt: NOW_MS * 1_000,
    leaseExpiresAt: undefined,
    statusChangedAt: NOW_MS * 1_000,
    suspectSince: undefined,
    json: {},
    ...fields,
  };
}

function change(record: AgentRecord, passes = true): ChangeRecord {
  const transition: TransitionRecord = {
    revision: record.revision,
    agentId: record.agentId,
    from: "idle",
    to: record.status,
    cause: "report",
    actor: "agent:x",
    occurredAt: NOW_MS * 1_000,
    exhaustion: undefined,
    clawIdentifier: "claw-1",
    fromClawIdentifier: "claw-1",
    incidentId: undefined,
    json: {},
  };
  return { passes, agent: record, transition, json: {} };
}

function watched(size: number): WatchedAgents {
  const agents = new WatchedAgents();
  const all = Array.from({ length: size }, (_, index) => agent(index + 1));
  agents.apply({ kind: "snapshot", because: "started", agents: all, revision: 100n });
  return agents;
}

const draw = (agents: WatchedAgents, columns = 100, rows = 20): string[] =>
  liveLines({ address: "http://a:1", agents, nowMs: NOW_MS }, { columns, rows }, plainPaint);

describe("the live table", () => {
  test("shows the agents that changed last when not all fit, and the number of the others", () => {
    const agents = watched(500);
    agents.apply({ kind: "changes", changes: [change(agent(7, { status: "busy", revision: 900n }))], revision: 900n });
    const lines = draw(agents);
    expect(lines[0]).toBe("Agents at http://a:1: 500, as of revision 900");
    expect(lines[1]).toBe("idle 499  on_call 0  busy 1  exhausted 0  offline 0");
    expect(lines[4]).toMatch(/^agent-007 {2}claw-1 {2}busy/);
    expect(lines.join("\n")).toContain("… and 492 more; the shown ones changed last");
    expect(lines.join("\n")).toMatch(/agent-007 {2}idle {2}busy {2}report/);
    expect(lines).toHaveLength(20);
  });

  test("shows suspect agents as suspect, and counts them as suspect only", () => {
    const agents = watched(3);
    agents.suspect({ counts: new Map([["idle", 2]]), since: new Map([["agent-002", NOW_MS * 1_000 - 30_000_000]]) });
    const lines = draw(agents);
    expect(lines[1]).toBe("idle 1  on_call 0  busy 0  exhausted 0  offline 0  suspect 2");
    expect(lines.find((line) => line.startsWith("agent-002"))).toMatch(/claw-1 {2}suspect/);
    expect(lines.find((line) => line.startsWith("agent-001"))).toMatch(/claw-1 {2}idle/);
    agents.suspect({ counts: new Map([["idle", 0]]), since: new Map() });
    expect(draw(agents)[1]).toBe("idle 3  on_call 0  busy 0  exhausted 0  offline 0");
  });

  test("drops agents that no longer pass the filter, and restarts with a snapshot", () => {
    const agents = watched(2);
    agents.apply({ kind: "changes", changes: [change(agent(1, { revision: 101n }), false)], revision: 101n });
    expect(agents.size).toBe(1);
    agents.apply({ kind: "snapshot", because: "compacted", agents: [agent(9)], revision: 200n });
    expect(draw(agents).join("\n")).toContain("agent-009");
    expect(agents.size).toBe(1);
  });

  test("shows that it is disconnected until it reconnects", () => {
    const agents = watched(1);
    agents.apply({ kind: "interrupted", error: undefined, retryInMs: 1 });
    expect(draw(agents).at(-1)).toBe("Disconnected: the service asked for a new connection. Reconnecting.");
    agents.apply({ kind: "bookmark", revision: 101n });
    expect(draw(agents).at(-1)).toBe("Stop with Ctrl-C.");
  });

  test.each([
    [200, 60],
    [80, 24],
    [40, 10],
    [20, 3],
    [1, 1],
  ])("fits %i×%i", (columns, rows) => {
    const agents = watched(100);
    for (let number = 1; number <= 80; number += 1) {
      const changed = agent(number, { agentId: "漢字".repeat(60), revision: BigInt(1_000 + number) });
      agents.apply({ kind: "changes", changes: [change(changed)], revision: changed.revision });
    }
    expect(draw(agents, columns, rows).length).toBeLessThanOrEqual(rows);
  });
});
