import { Writable } from "node:stream";
import { stripVTControlCharacters } from "node:util";
import type { AgentView, TransitionView } from "harborforge-agents-client";
import { describe, expect, it } from "vitest";
import { TRANSITION_CAUSES } from "../../common/contract/enum-names.ts";
import { colourPaint, plainPaint } from "../../src/cli/terminal/paint.ts";
import { Printer } from "../../src/cli/terminal/printer.ts";
import { FleetTally } from "../../src/simulate/fleet-tally.ts";
import { clockOf, spanOf } from "../../src/simulate/format.ts";
import { tableLines } from "../../src/simulate/live-screen.ts";
import { closingDocument, closingLines, summaryLines, transitionLine } from "../../src/simulate/plain-lines.ts";
import { createOutput } from "../../src/simulate/simulation-output.ts";
import type { SimulationView } from "../../src/simulate/view.ts";

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
    occurredAt: new Date(NOW_MS),
    exhaustion: undefined,
    clawIdentifier: "demo-claw-a",
    ...fields,
  };
}

const rateLimit = { reason: "rate_limit", recoveryAt: new Date(NOW_MS + 4_600) } as const;
const billing = { reason: "billing", recoveryAt: new Date(NOW_MS + 598_000) } as const;

function view(fields: Partial<SimulationView> = {}): SimulationView {
  const tally = { idle: 7, on_call: 1, busy: 3, exhausted: 1, offline: 0 };
  const dead = { idle: 0, on_call: 0, busy: 0, exhausted: 0, offline: 12 };
  return {
    address: "http://127.0.0.1:50051",
    elapsedMs: 42_000,
    now: NOW_MS,
    pace: { intervalMs: 10_000, leaseMs: 30_000 },
    claws: [
      { name: "demo-claw-a", tally, runs: true, doing: "beating" },
      { name: "demo-claw-b", tally: dead, runs: false, doing: "killed 31 s ago" },
      { name: "demo-claw-c", tally, runs: true, doing: "beating" },
    ],
    all: { idle: 14, on_call: 2, busy: 6, exhausted: 2, offline: 12 },
    claimed: 41,
    refused: new Map([
      ["REVISION_MISMATCH", 2],
      ["AGENT_EXHAUSTED", 4],
    ]),
    refusedBeats: new Map([["REPORT_OUTDATED", 5]]),
    totals: {
      transitions: 99,
      causes: new Map([
        ["report", 87],
        ["lease_expired", 12],
      ]),
      recovered: 9,
      lost: 12,
      returned: 3,
    },
    killed: 1,
    lostAlive: 0,
    lostInOutage: 0,
    revisions: [100n, 199n],
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
    const lines = tableLines(view(), SMALL, plainPaint);
    expect(lines.slice(0, 13).map((line) => line.trimEnd())).toEqual([
      "HarborForge Agents, a simulation at http://127.0.0.1:50051                 0:42",
      "",
      "claw              idle  on call   busy  exhausted  offline  process",
      "demo-claw-a          7        1      3          1        0  beating",
      "demo-claw-b          0        0      0          0       12  killed 31 s ago",
      "demo-claw-c          7        1      3          1        0  beating",
      "all                 14        2      6          2       12  36 agents",
      "",
      "Heartbeat every 10 s, lease 30 s. Recovered 9, lost 12, came back 3.",
      "Calendar: 41 claimed, 6 rejected: AGENT_EXHAUSTED 4, REVISION_MISMATCH 2",
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
    for (const paint of [plainPaint, colourPaint]) {
      const long = "x".repeat(300);
      const lines = tableLines(view({ notice: long, note: long }), size, paint);
      expect(lines.length).toBeLessThanOrEqual(size.rows);
      for (const line of lines) expect(stripVTControlCharacters(line).length).toBeLessThan(size.columns);
    }
  });

  it("shows the number of exhausted agents beyond those that fit", () => {
    const exhausted = Array.from({ length: 30 }, (_, index) =>
      agent(`demo-claw-a-${index}`, { exhaustion: rateLimit }),
    );
    const line = tableLines(view({ exhausted }), SMALL, plainPaint)[10];
    expect(line).toMatch(/^Exhausted, back in: (a-\d+ 5 s, )+a-\d+ 5 s and \d+ more$/);
  });

  it("has the same text with colours as without", () => {
    const coloured = tableLines(view(), SMALL, colourPaint);
    expect(coloured.map(stripVTControlCharacters)).toEqual(tableLines(view(), SMALL, plainPaint));
    expect(coloured.join()).toContain("\u001b[");
  });
});

describe("plain lines", () => {
  it("describe a transition in the contract's words", () => {
    const exhausted = transition({ from: "busy", to: "exhausted", cause: "report", exhaustion: rateLimit });
    expect(transitionLine(exhausted)).toMatch(/^\S+ demo-claw-a-01 busy -> exhausted \[report\] rate limit, for 5 s$/);
    expect(transitionLine(transition({ to: "offline", cause: "lease_expired" }))).toMatch(
      /idle -> offline \[lease_expired\] lease expired$/,
    );
    expect(transitionLine(transition({ from: undefined, to: "idle", cause: "created" }))).toContain("none -> idle");
  });

  it("summarize", () => {
    expect(summaryLines(view())).toEqual([
      "summary 0:42 demo-claw-a idle=7 on_call=1 busy=3 exhausted=1 offline=0 (beating)",
      "summary 0:42 demo-claw-b idle=0 on_call=0 busy=0 exhausted=0 offline=12 (killed 31 s ago)",
      "summary 0:42 demo-claw-c idle=7 on_call=1 busy=3 exhausted=1 offline=0 (beating)",
      "summary 0:42 all idle=14 on_call=2 busy=6 exhausted=2 offline=12",
    ]);
    expect(closingLines(view())).toEqual([
      "Duration 0:42: 36 agents on 3 claws, 99 transitions: report 87, lease_expired",
      "  12.",
      "The calendar claimed 41 agents; 6 claims were rejected (AGENT_EXHAUSTED 4,",
      "  REVISION_MISMATCH 2).",
      "Beats that the service rejected or changed: REPORT_OUTDATED 5.",
      "9 exhaustions recovered, 12 leases expired, 3 agents came back.",
      "Claws killed: 1. No agent that sent heartbeats lost its lease.",
    ]);
    expect(closingLines(view({ lostAlive: 2 })).at(-1)).toMatch(/2 agents that sent heartbeats lost their leases/);
    expect(closingLines(view({ lostAlive: 1 })).at(-1)).toMatch(/1 agent that sent heartbeats lost its lease: this/);
    expect(closingLines(view({ lostInOutage: 3 })).slice(-2)).toEqual([
      "3 leases expired while the simulation itself did not run or had no network: this",
      "  is no fault of the service.",
    ]);
    const one = view({
      claimed: 1,
      refused: new Map([["AGENT_EXHAUSTED", 1]]),
      totals: { transitions: 1, causes: new Map(), recovered: 1, lost: 1, returned: 1 },
    });
    expect(closingLines(one).slice(0, 5)).toEqual([
      "Duration 0:42: 36 agents on 3 claws, 1 transition.",
      "The calendar claimed 1 agent; 1 claim was rejected (AGENT_EXHAUSTED 1).",
      "Beats that the service rejected or changed: REPORT_OUTDATED 5.",
      "1 exhaustion recovered, 1 lease expired, 1 agent came back.",
      "Claws killed: 1. No agent that sent heartbeats lost its lease.",
    ]);
    const causes = new Map(TRANSITION_CAUSES.map((cause) => [cause, 1_000_000] as const));
    const long = view({ totals: { ...view().totals, causes: causes } });
    for (const line of closingLines(long)) expect(line.length, line).toBeLessThanOrEqual(80);
    expect(closingDocument(view())).toMatchObject({
      agents: 36,
      transitions: 99,
      causes: { report: 87, lease_expired: 12 },
      afterRevision: "100",
      revision: "199",
      leasesEndedOfBeatingAgents: 0,
    });
  });

  it("print times for people", () => {
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
  const quiet = { json: false, transitions: true };

  function terminal(isTTY: boolean, env: Record<string, string> = {}) {
    const written: string[] = [];
    const stream = new Writable({
      write(chunk, _encoding, done) {
        written.push(String(chunk));
        done();
      },
    });
    return { written, out: new Printer(Object.assign(stream, { isTTY, columns: 80, rows: 24 }), env) };
  }

  it("draws in place on the alternate screen, and restores the terminal", () => {
    const { written, out } = terminal(true);
    const output = createOutput(out, quiet);
    output.note("nothing of this is a line");
    output.transition(transition());
    output.show(view());
    output.show(view());
    expect(written).toHaveLength(1);
    expect(written[0]?.startsWith("\u001b[?1049h\u001b[?25l")).toBe(true);
    output.show(view({ elapsedMs: 43_000 }));
    expect(written[1]).not.toContain("\u001b[?1049h");
    expect(written[1]).not.toContain("\u001b[2J");
    output.close(view());
    expect(written[2]?.endsWith("\u001b[?25h\u001b[?1049l")).toBe(true);
    expect(written[3]).toMatch(/^Duration 0:42/);
  });

  it.each([
    [false, {}],
    [true, { TERM: "dumb" }],
  ])("writes plain lines without a terminal (%j, %j)", (isTTY, env) => {
    const { written, out } = terminal(isTTY, env);
    const output = createOutput(out, quiet);
    output.note("demo-claw-a starts");
    output.transition(transition());
    output.show(view({ elapsedMs: 9_000 }));
    output.show(view({ elapsedMs: 10_000 }));
    output.show(view({ elapsedMs: 10_100 }));
    output.close(view());
    expect(written.join("")).not.toContain("\u001b");
    expect(written[0]).toBe("note demo-claw-a starts\n");
    expect(written[1]).toContain("demo-claw-a-01");
    expect(written.filter((line) => line.startsWith("summary 0:10 all"))).toHaveLength(1);
  });

  it("is one document for programs", () => {
    const { written, out } = terminal(true);
    const output = createOutput(out, { json: true, transitions: true });
    output.note("nothing of this is said");
    output.transition(transition());
    output.show(view());
    output.close(view());
    expect(JSON.parse(written.join(""))).toEqual(closingDocument(view()));
  });
});

describe("the fleet", () => {
  const snapshot = (...agents: AgentView[]) =>
    ({ kind: "snapshot", because: "started", agents, revision: 1n }) as const;

  it("follows the watch, and counts transitions", () => {
    const fleet = new FleetTally();
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
    expect(fleet.totals).toMatchObject({ transitions: 4, recovered: 1, lost: 1, returned: 1 });
    expect(fleet.newest[0]?.cause).toBe("lease_expired");
    expect(fleet.tally("demo-claw-b")).toMatchObject({ idle: 0, offline: 1 });
    expect(fleet.tally()).toMatchObject({ idle: 1, offline: 1 });
    fleet.apply(snapshot());
    expect(fleet.agents).toEqual([]);
  });

  it("drops a deleted agent", () => {
    const fleet = new FleetTally();
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

describe("the claws of the live table", () => {
  const tally = { idle: 10, on_call: 0, busy: 0, exhausted: 0, offline: 0 };
  const dead = { idle: 0, on_call: 0, busy: 0, exhausted: 0, offline: 10 };
  const running = (name: string) => ({ name, tally, runs: true, doing: "beating" });
  /** A hundred claws, of which every fifth was killed; half of those before their leases expired. */
  const claws = Array.from({ length: 100 }, (_, place) => {
    if (place % 5 !== 0) return running(`live-${place}`);
    return { name: `dead-${place}`, tally: place % 2 === 0 ? tally : dead, runs: false, doing: "killed 1 s ago" };
  });
  const shown = (rows: number) => tableLines(view({ claws }), { columns: 100, rows }, (_, text) => text);

  it("that are hidden are alive, as long as the screen has rows for all dead ones", () => {
    for (const rows of [34, 40, 60, 200]) {
      const lines = shown(rows);
      expect(lines).toHaveLength(rows);
      expect(
        lines.filter((line) => line.startsWith("dead-")),
        `${rows} rows`,
      ).toHaveLength(20);
      expect(lines.join("\n")).not.toContain("of them down");
      expect(lines.at(-1)).toBe("Stop with Ctrl-C.");
    }
  });

  it("that are dead and do not fit are counted", () => {
    const lines = shown(24);
    expect(lines.filter((line) => line.startsWith("dead-"))).toHaveLength(11);
    expect(lines.filter((line) => line.startsWith("live-"))).toEqual([]);
    expect(lines).toContain("and 89 more claws, 9 of them down");
    expect(lines).toHaveLength(24);
  });

  it("that went silent by themselves are dead, too", () => {
    const silent = { name: "silent", tally: dead, runs: true, doing: "reconnecting" };
    const many = [...Array.from({ length: 50 }, (_, place) => running(`live-${place}`)), silent];
    const lines = tableLines(view({ claws: many }), { columns: 100, rows: 24 }, (_, text) => text);
    expect(lines.filter((line) => line.startsWith("silent"))).toHaveLength(1);
    expect(lines).toContain("and 43 more claws");
  });
});
