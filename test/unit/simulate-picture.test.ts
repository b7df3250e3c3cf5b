import { stripVTControlCharacters } from "node:util";
import { describe, expect, it } from "vitest";
import { Fleet } from "../../src/cli/demo/fleet.ts";
import { createOutput } from "../../src/cli/demo/output.ts";
import { closingLines, summaryLines, transitionLine } from "../../src/cli/demo/plain-lines.ts";
import { tableLines } from "../../src/cli/demo/table.ts";
import type { DemoView } from "../../src/cli/demo/view.ts";
import { clockOf, spanOf } from "../../src/cli/demo/words.ts";
import type { AgentView, TransitionView } from "../../src/client/views.ts";

const NOW_MS = 1_790_000_000_000;
const SMALL = { columns: 80, rows: 24 };

function agent(agentId: string, fields: Partial<AgentView> = {}): AgentView {
  const clawIdentifier = agentId.slice(0, -3);
  return {
    id: 1n,
    userId: 1n,
    agentId,
    clawIdentifier,
    status: "idle",
    exhaustion: undefined,
    revision: 1n,
    ...fields,
  };
}

function transition(fields: Partial<TransitionView> = {}): TransitionView {
  return {
    revision: 2n,
    agentId: "demo-claw-a-01",
    from: "idle",
    to: "on_call",
    cause: "service",
    actor: "service:anonymous",
    occurredAt: NOW_MS * 1_000,
    exhaustion: undefined,
    clawIdentifier: "demo-claw-a",
    ...fields,
  };
}

const rateLimit = { reason: "rate_limit", recoveryAt: (NOW_MS + 4_600) * 1_000 } as const;
const billing = { reason: "billing", recoveryAt: (NOW_MS + 598_000) * 1_000 } as const;

function demoView(fields: Partial<DemoView> = {}): DemoView {
  const tally = { idle: 7, on_call: 1, busy: 3, exhausted: 1, offline: 0 };
  const dead = { idle: 0, on_call: 0, busy: 0, exhausted: 0, offline: 12 };
  return {
    address: "http://127.0.0.1:50051",
    elapsedMs: 42_000,
    now: NOW_MS,
    pace: { intervalMs: 10_000, leaseMs: 30_000 },
    claws: [
      { name: "demo-claw-a", tally, doing: "beating" },
      { name: "demo-claw-b", tally: dead, doing: "killed 31 s ago" },
      { name: "demo-claw-c", tally, doing: "beating" },
    ],
    all: { idle: 14, on_call: 2, busy: 6, exhausted: 2, offline: 12 },
    claimed: 41,
    refused: new Map([
      ["REVISION_MISMATCH", 2],
      ["AGENT_EXHAUSTED", 4],
    ]),
    totals: { transitions: 99, recovered: 9, lost: 12, returned: 3 },
    notice: "All of demo-claw-b is offline. It starts again in 4 s.",
    note: "demo-claw-b is offline: 12 agents, 27 s after it was killed",
    exhausted: [
      agent("demo-claw-a-12", { status: "exhausted", exhaustion: billing }),
      agent("demo-claw-c-03", { status: "exhausted", exhaustion: rateLimit }),
    ],
    newest: Array.from({ length: 40 }, () => transition()),
    ...fields,
  };
}

describe("the table", () => {
  it("shows the fleet by claw and status", () => {
    const lines = tableLines(demoView(), SMALL, false);
    expect(lines.slice(0, 13).map((line) => line.trimEnd())).toEqual([
      "HarborForge Agents, a demo at http://127.0.0.1:50051                       0:42",
      "",
      "claw              idle  on call   busy  exhausted  offline  process",
      "demo-claw-a          7        1      3          1        0  beating",
      "demo-claw-b          0        0      0          0       12  killed 31 s ago",
      "demo-claw-c          7        1      3          1        0  beating",
      "all                 14        2      6          2       12  36 agents",
      "",
      "Heartbeat every 10 s, lease 30 s. Recovered 9, lost 12, came back 3.",
      "Calendar: 41 claimed, 6 refused: AGENT_EXHAUSTED 4, REVISION_MISMATCH 2",
      "Exhausted, back in: c-03 5 s, a-12 9 min 58 s (billing)",
      "All of demo-claw-b is offline. It starts again in 4 s.",
      "",
    ]);
    expect(lines[13]).toMatch(/^[\d:.]{12} {2}demo-claw-a-01 {2}idle {6}→ on call {4}set by a service$/);
  });

  it.each([
    SMALL,
    { columns: 200, rows: 60 },
    { columns: 40, rows: 10 },
    { columns: 1, rows: 1 },
  ])("fits $columns×$rows, with colours and without", (size) => {
    for (const colour of [true, false]) {
      const long = "x".repeat(300);
      const lines = tableLines(demoView({ notice: long, note: long }), size, colour);
      expect(lines.length).toBeLessThanOrEqual(size.rows);
      for (const line of lines) expect(stripVTControlCharacters(line).length).toBeLessThan(size.columns);
    }
  });

  it("says how many exhausted agents there are beyond those that fit", () => {
    const exhausted = Array.from({ length: 30 }, (_, index) =>
      agent(`demo-claw-a-${index}`, { exhaustion: rateLimit }),
    );
    const line = tableLines(demoView({ exhausted }), SMALL, false)[10];
    expect(line).toMatch(/^Exhausted, back in: (a-\d+ 5 s, )+a-\d+ 5 s and \d+ more$/);
  });

  it("says the same with colours as without", () => {
    const coloured = tableLines(demoView(), SMALL, true);
    expect(coloured.map(stripVTControlCharacters)).toEqual(tableLines(demoView(), SMALL, false));
    expect(coloured.join()).toContain("\u001b[");
  });
});

describe("plain lines", () => {
  it("tell a transition in the contract's words", () => {
    const exhausted = transition({ from: "busy", to: "exhausted", cause: "report", exhaustion: rateLimit });
    expect(transitionLine(exhausted)).toMatch(/^\S+ demo-claw-a-01 busy -> exhausted \[report\] rate limit, for 5 s$/);
    expect(transitionLine(transition({ to: "offline", cause: "lease_expired" }))).toMatch(
      /idle -> offline \[lease_expired\] its lease ended$/,
    );
    expect(transitionLine(transition({ from: undefined, to: "idle", cause: "created" }))).toContain("none -> idle");
  });

  it("sum up", () => {
    expect(summaryLines(demoView())).toEqual([
      "summary 0:42 demo-claw-a idle=7 on_call=1 busy=3 exhausted=1 offline=0 (beating)",
      "summary 0:42 demo-claw-b idle=0 on_call=0 busy=0 exhausted=0 offline=12 (killed 31 s ago)",
      "summary 0:42 demo-claw-c idle=7 on_call=1 busy=3 exhausted=1 offline=0 (beating)",
      "summary 0:42 all idle=14 on_call=2 busy=6 exhausted=2 offline=12",
    ]);
    expect(closingLines(demoView())[1]).toBe(
      "The calendar claimed 41 agents; 6 claims were refused (AGENT_EXHAUSTED 4, REVISION_MISMATCH 2).",
    );
  });

  it("tell times as people do", () => {
    expect([0, 59_999, 3_600_000].map(clockOf)).toEqual(["0:00", "0:59", "1:00:00"]);
    expect([-5, 40, 949, 12_400, 60_000, 598_000, 7_260_000].map(spanOf)).toEqual([
      "0.0 s",
      "0.1 s",
      "1.0 s",
      "12 s",
      "1 min",
      "9 min 58 s",
      "2 h 1 min",
    ]);
  });
});

describe("the output", () => {
  function terminal(fields: { isTTY?: boolean } = {}) {
    const written: string[] = [];
    const write = (text: string | Uint8Array): boolean => written.push(String(text)) > 0;
    return { written, stream: { isTTY: true, columns: 80, rows: 24, write, ...fields } };
  }

  it("draws in place on a screen of its own, and leaves the terminal as it was", () => {
    const { written, stream } = terminal();
    const output = createOutput(stream, {});
    output.note("nothing of this is a line");
    output.transition(transition());
    output.show(demoView());
    output.show(demoView());
    expect(written).toHaveLength(1);
    expect(written[0]?.startsWith("\u001b[?1049h\u001b[?25l")).toBe(true);
    output.show(demoView({ elapsedMs: 43_000 }));
    expect(written[1]).not.toContain("\u001b[?1049h");
    expect(written[1]).not.toContain("\u001b[2J");
    output.close(demoView());
    expect(written[2]?.endsWith("\u001b[?25h\u001b[?1049l")).toBe(true);
    expect(written[3]).toMatch(/^The demo ran for 0:42/);
  });

  it("obeys NO_COLOR", () => {
    const { written, stream } = terminal();
    createOutput(stream, { NO_COLOR: "" }).show(demoView());
    createOutput(stream, { NO_COLOR: "1" }).show(demoView());
    expect(written[0]).toContain("\u001b[0m");
    expect(written[1]).not.toContain("\u001b[0m");
  });

  it.each([
    [{ isTTY: false }, {}],
    [{ isTTY: true }, { TERM: "dumb" }],
  ])("writes plain lines where there is no terminal %j %j", (fields, env) => {
    const { written, stream } = terminal(fields);
    const output = createOutput(stream, env);
    output.note("demo-claw-a starts");
    output.transition(transition());
    output.show(demoView({ elapsedMs: 9_000 }));
    output.show(demoView({ elapsedMs: 10_000 }));
    output.show(demoView({ elapsedMs: 10_100 }));
    output.close(demoView());
    expect(written.join("")).not.toContain("\u001b");
    expect(written[0]).toBe("note demo-claw-a starts\n");
    expect(written.filter((line) => line.startsWith("summary 0:10 all"))).toHaveLength(1);
  });
});

describe("the fleet", () => {
  const snapshot = (...agents: AgentView[]) =>
    ({ kind: "snapshot", because: "started", agents, revision: 1n }) as const;

  it("is what the watch tells, and counts what happens", () => {
    const fleet = new Fleet();
    fleet.apply(snapshot(agent("demo-claw-a-01"), agent("demo-claw-b-01", { status: "offline" })));
    const change = (to: AgentView["status"], fields: Partial<TransitionView>) => ({
      passes: true,
      agent: agent("demo-claw-b-01", { status: to }),
      transition: transition({ to, ...fields }),
    });
    const changes = [
      change("idle", { from: "offline", cause: "heartbeat" }),
      change("exhausted", { from: "idle", cause: "report" }),
      change("idle", { from: "exhausted", cause: "recovery" }),
      change("offline", { from: "idle", cause: "lease_expired" }),
    ];
    expect(fleet.apply({ kind: "changes", changes, revision: 9n })).toHaveLength(4);
    expect(fleet.totals).toEqual({ transitions: 4, recovered: 1, lost: 1, returned: 1 });
    expect(fleet.newest[0]?.cause).toBe("lease_expired");
    expect(fleet.tally("demo-claw-b")).toMatchObject({ idle: 0, offline: 1 });
    expect(fleet.tally()).toMatchObject({ idle: 1, offline: 1 });
    fleet.apply(snapshot());
    expect(fleet.agents).toEqual([]);
  });

  it("forgets an agent that was deleted", () => {
    const fleet = new Fleet();
    fleet.apply(snapshot(agent("demo-claw-a-01")));
    const deleted = transition({ to: undefined, cause: "deleted" });
    fleet.apply({
      kind: "changes",
      changes: [{ passes: false, agent: agent("demo-claw-a-01"), transition: deleted }],
      revision: 9n,
    });
    expect(fleet.agents).toEqual([]);
  });
});
