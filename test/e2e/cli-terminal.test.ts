import { describe, expect, test } from "vitest";
import { runCli } from "../support/cli.ts";
import { cliInTerminal, type PseudoTerminal } from "../support/pseudo-terminal.ts";
import { unique, useService } from "../support/service.ts";

const service = useService();
const env = (more: Record<string, string> = {}) => ({
  HARBORFORGE_ADDRESS: service().addresses.grpc,
  TZ: "UTC",
  ...more,
});

const [GREEN, MAGENTA] = [2, 5];
// With the date on another day: tests may run at midnight.
const CLOCK = String.raw`(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d`;
const WHEN = String.raw`${CLOCK} \((now|\d+ (s|min) ago)\)`;

async function quietly(...args: string[]): Promise<void> {
  expect(await runCli(args, env())).toMatchObject({ code: 0, stderr: "" });
}

/** An agent of a claw of its own. */
async function newAgent(agentId = unique("agent"), claw = unique("claw")): Promise<{ agentId: string; claw: string }> {
  await quietly("users", "create", unique("user"), "--agent-id", agentId, "--claw", claw);
  return { agentId, claw };
}

/** The screen, with placeholders for values that differ from run to run. */
function picture(terminal: PseudoTerminal, names: Readonly<Record<string, string>>): string[] {
  return terminal.screen().map((line) => {
    let text = line;
    for (const [name, as] of Object.entries(names)) text = text.replaceAll(name, as.padEnd(name.length));
    return text
      .replaceAll(new RegExp(WHEN, "g"), "TIME")
      .replaceAll(/revision \d+/g, "revision N")
      .replaceAll(/ +/g, " ");
  });
}

describe("a list on a terminal", () => {
  test("fits, is coloured, and keeps columns straight with wide names", async () => {
    const claw = unique("claw");
    const names = ["plain", "漢字かな", "👩‍👩‍👧👍", "e\u0301e\u0301"].map((name) => `${name}-${unique("x").slice(-4)}`);
    for (const name of names) await newAgent(name, claw);
    await quietly("agents", "status", names[0] ?? "", "exhausted", "--reason", "rate_limit", "--retry-after", "4m");
    await using wide = cliInTerminal(["agents", "list", "--claw", claw], { columns: 130, env: env() });
    expect(await wide.ended).toBe(0);
    expect(wide.screen()).toHaveLength(5);
    expect(wide.screen()[0]).toMatch(/^AGENT +CLAW +STATUS +SINCE +RECOVERY +HEARTBEAT +USER$/);
    expect(wide.screen()[1]).toMatch(new RegExp(`exhausted +${WHEN} +${CLOCK} \\(in 4 min\\), rate limit`));
    expect(wide.colourOf("exhausted")).toBe(MAGENTA);
    expect(wide.colourOf("idle")).toBe(GREEN);
    // Each row's claw begins below its heading, whatever is before it and whatever width this terminal gives
    // it.
    const below = wide.columnOf("CLAW");
    for (let row = 1; row <= names.length; row += 1) expect(wide.columnOf(claw, row), names[row - 1]).toBe(below);
  });

  test("omits columns on a narrow screen, and never wraps", async () => {
    const { claw } = await newAgent();
    await using narrow = cliInTerminal(["agents", "list", "--claw", claw], { columns: 79, env: env() });
    expect(await narrow.ended).toBe(0);
    expect(narrow.screen()).toHaveLength(2);
    expect(narrow.screen()[0]).not.toContain("HEARTBEAT");
    await using tiny = cliInTerminal(["agents", "list", "--claw", claw], { columns: 40, env: env() });
    expect(await tiny.ended).toBe(0);
    expect(tiny.screen()).toHaveLength(2);
    expect(tiny.screen()[1]).toContain("…");
  });

  test("of the fleet's claws keeps name and sum on a narrow screen, and never wraps", async () => {
    const { claw } = await newAgent();
    await using tiny = cliInTerminal(["fleet", "--claw", claw], { columns: 40, env: env() });
    expect(await tiny.ended).toBe(0);
    const screen = tiny.screen();
    expect(screen).toHaveLength(screen.findIndex((line) => line.startsWith("CLAW")) + 2);
    expect(screen.at(-2)).toMatch(/^CLAW .*ALL$/);
    expect(screen.at(-1)).toMatch(/ 1$/);
  });

  test("of a watched fleet follows the counts in place, and leaves the terminal as it was", async () => {
    const { agentId, claw } = await newAgent();
    await using terminal = cliInTerminal(["fleet", "--watch", "--claw", claw], { columns: 80, env: env() });
    await terminal.shows(/^idle +1 /m);
    await quietly("agents", "status", agentId, "busy");
    await terminal.shows(/^busy +1 /m);
    expect(terminal.screen().filter((line) => line.startsWith("idle "))).toHaveLength(1);
    expect(terminal.screen().at(-1)).toBe("Stop with Ctrl-C.");
  });

  test.each([{ NO_COLOR: "1" }, { TERM: "dumb" }])("has no colours with %j", async (more) => {
    const { claw } = await newAgent();
    await using terminal = cliInTerminal(["agents", "list", "--claw", claw], { columns: 130, env: env(more) });
    expect(await terminal.ended).toBe(0);
    expect(terminal.screen().join("\n")).toContain(" idle ");
    expect(terminal.raw).not.toContain("\u001b[3");
  });

  test("shows control characters in names escaped", async () => {
    const username = `${unique("evil")}\u202e`;
    await quietly("users", "create", username, "--display-name", "\u2066gone\u202e");
    await using terminal = cliInTerminal(["users", "get", username], { env: env() });
    expect(await terminal.ended).toBe(0);
    expect(terminal.screen().join("\n")).toContain("name      \\u{2066}gone\\u{202e}");
  });
});

test("fleet draws bars", async () => {
  const { agentId, claw } = await newAgent();
  await newAgent(unique("agent"), claw);
  await quietly("agents", "status", agentId, "busy");
  await using terminal = cliInTerminal(["fleet", "--claw", claw], { columns: 90, rows: 20, env: env() });
  expect(await terminal.ended).toBe(0);
  expect(picture(terminal, { [claw]: "CLAW-1" })).toEqual([
    "2 agents on 1 claw",
    "",
    `idle 1 ${"█".repeat(20)} 50 %`,
    "on_call 0 0 %",
    `busy 1 ${"█".repeat(20)} 50 %`,
    "exhausted 0 0 %",
    "offline 0 0 %",
    "",
    "Brake: released",
    expect.stringMatching(/^Pace: a heartbeat every \S+, leases of 30s$/),
    "Revision: ".concat(String(terminal.screen()[10]?.slice("Revision: ".length))),
    "",
    "CLAW IDLE ON_CALL BUSY EXHAUSTED OFFLINE ALL",
    expect.stringMatching(/^CLAW-1 1 0 1 0 0 2$/),
  ]);
  expect(terminal.colourOf("█")).toBe(GREEN);
});

describe("agents watch on a terminal", () => {
  test("is a live table that redraws, follows the terminal's size, and restores the screen", async () => {
    const { agentId, claw } = await newAgent();
    await using terminal = cliInTerminal(["agents", "watch", "--claw", claw], { columns: 130, rows: 16, env: env() });
    const names = { [agentId]: "AGENT-1", [claw]: "CLAW-1" };
    await terminal.shows("Stop with Ctrl-C.");
    expect(terminal.isAlternate).toBe(true);
    expect(terminal.isCursorHidden).toBe(true);
    const address = `http://${service().addresses.grpc}`;
    await terminal.shows(() => {
      expect(picture(terminal, names)).toEqual([
        `Agents at ${address}: 1, as of revision N`,
        "idle 1 on_call 0 busy 0 exhausted 0 offline 0",
        "",
        "AGENT CLAW STATUS SINCE RECOVERY",
        "AGENT-1 CLAW-1 idle TIME",
        ...Array.from({ length: 10 }, () => ""),
        "Stop with Ctrl-C.",
      ]);
    });

    await quietly("agents", "status", agentId, "exhausted", "--reason", "billing", "--retry-after", "10m");
    await terminal.shows(() => {
      const lines = picture(terminal, names);
      expect(lines[1]).toBe("idle 0 on_call 0 busy 0 exhausted 1 offline 0");
      expect(lines[4]).toMatch(new RegExp(`^AGENT-1 CLAW-1 exhausted TIME ${CLOCK} \\(in 10 min\\), billing$`));
      expect(lines[6]).toBe("TIME AGENT FROM TO CAUSE DETAILS");
      expect(lines[7]).toMatch(
        new RegExp(`^TIME AGENT-1 idle exhausted service billing until ${CLOCK} \\(in 10 min\\)$`),
      );
    });
    expect(terminal.colourOf("exhausted  ", 4)).toBe(MAGENTA);

    const other = await newAgent(`漢字-${unique("x")}`, claw);
    await terminal.shows(other.agentId);
    await quietly("agents", "delete", agentId);
    await terminal.shows(() => {
      expect(picture(terminal, names)[0]).toBe(`Agents at ${address}: 1, as of revision N`);
      expect(picture(terminal, names)[7]).toMatch(/^TIME AGENT-1 exhausted - deleted/);
    });

    terminal.resize(60, 9);
    await terminal.shows((lines) => {
      expect(lines).toHaveLength(9);
      expect(lines[8]).toBe("Stop with Ctrl-C.");
      expect(lines.filter((line) => line.length >= 60)).toEqual([]);
    });

    terminal.type("\u0003");
    expect(await terminal.ended).toBe(0);
    expect(terminal.isAlternate).toBe(false);
    expect(terminal.isCursorHidden).toBe(false);
    expect(terminal.screen().filter((line) => line !== "^C")).toEqual([]);
  });

  test("prints lines when the terminal has no alternate screen", async () => {
    const { agentId, claw } = await newAgent();
    await using terminal = cliInTerminal(["agents", "watch", "--claw", claw], {
      columns: 120,
      env: env({ TERM: "dumb" }),
    });
    await terminal.shows(/^snapshot of 1 agent as of revision \d+$/m);
    await quietly("agents", "status", agentId, "busy");
    await terminal.shows(new RegExp(`^\\d\\d:\\d\\d:\\d\\d ${agentId} idle -> busy \\[service\\]$`, "m"));
    expect(terminal.raw).not.toContain("\u001b");
    terminal.type("\u0003");
    expect(await terminal.ended).toBe(0);
  });
});

describe("beat on a terminal", () => {
  test("says goodbye at Ctrl-C", async () => {
    const { agentId, claw } = await newAgent();
    await using terminal = cliInTerminal(["beat", agentId, "--status", "busy", "-i"], { columns: 120, env: env() });
    await terminal.shows(new RegExp(`${agentId} sends heartbeats on ${claw}: every \\S+, leases of 30s`));
    await terminal.shows(new RegExp(`^\\d\\d:\\d\\d:\\d\\d ${agentId} is busy$`, "m"));
    expect(await runCli(["agents", "get", agentId, "-o", "json"], env())).toMatchObject({
      stdout: expect.stringContaining('"status": "AGENT_STATUS_BUSY"'),
    });
    terminal.type("exhausted rate_limit 2m\r");
    await terminal.shows(new RegExp(`${agentId} is exhausted`));
    terminal.type("sleeping\r");
    await terminal.shows("unknown input: use idle, on_call, busy");
    await quietly("agents", "status", agentId, "idle");
    await terminal.shows(`${agentId} is idle, reported by the service`);
    terminal.type("\u0003");
    await terminal.shows(`${agentId} said goodbye`);
    expect(await terminal.ended).toBe(0);
    const { stdout } = await runCli(["agents", "transitions", agentId, "-o", "jsonl", "--limit", "1"], env());
    expect(JSON.parse(stdout)).toMatchObject({ cause: "TRANSITION_CAUSE_GOODBYE" });
  });
});
