import { describe, expect, test, vi } from "vitest";
import { runCli, startCli } from "../support/cli.ts";
import { openStage } from "../support/program.ts";
import { unique, useService } from "../support/service.ts";

const INTERVAL_MS = 500;
const service = useService({ pace: { shortestIntervalMs: INTERVAL_MS, heartbeatsPerSecond: 10_000 } });
const env = () => ({ HARBORFORGE_ADDRESS: service().addresses.grpc });

async function said(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await runCli(args, env());
  expect({ code, stderr }, args.join(" ")).toEqual({ code: 0, stderr: "" });
  return stdout;
}

function documents(text: string): Record<string, unknown>[] {
  return text.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line)]));
}

async function newAgent(): Promise<{ agentId: string; claw: string }> {
  const agentId = unique("agent");
  const claw = unique("claw");
  await said("users", "create", unique("user"), "--agent-id", agentId, "--claw", claw);
  return { agentId, claw };
}

const soon = { timeout: 20_000, interval: 20 };

describe("fleet --watch", () => {
  test("prints a line for each change of the counts, and the contract's JSON on request", async () => {
    const { agentId, claw } = await newAgent();
    const lines = startCli(["fleet", "--watch", "--claw", claw], env());
    const json = startCli(["fleet", "-w", "--claw", claw, "-o", "jsonl"], env());
    await vi.waitFor(() => expect(lines.stdout).toMatch(/^\S+ idle 1, on_call 0, .* on 1 claw, revision \d+\n$/), soon);
    await vi.waitFor(() => expect(documents(json.stdout)).toHaveLength(1), soon);
    await said("agents", "status", agentId, "busy");
    await vi.waitFor(() => expect(lines.stdout).toMatch(/ idle 0, on_call 0, busy 1, .* on 1 claw, /), soon);
    await vi.waitFor(() => {
      const [first, ...later] = documents(json.stdout);
      expect(first).toMatchObject({ claws: [{ statuses: [{ status: "AGENT_STATUS_IDLE", count: "1" }] }] });
      const busy = [{ status: "AGENT_STATUS_BUSY", count: "1" }];
      expect(later).toContainEqual(expect.objectContaining({ claws: [{ clawIdentifier: claw, statuses: busy }] }));
    }, soon);
    for (const watch of [lines, json]) watch.signal("SIGINT");
    expect(await lines.done).toMatchObject({ code: 0, stderr: "" });
    expect(await json.done).toMatchObject({ code: 0, stderr: "" });
  });

  test("ends after its duration", async () => {
    const { claw } = await newAgent();
    expect(await said("fleet", "--watch", "--claw", claw, "--duration", "3s")).toContain(" idle 1, ");
  });

  test("rejects a duration without a watch", async () => {
    const wrong = await runCli(["fleet", "--duration", "3s"], env());
    expect(wrong).toMatchObject({ stdout: "", stderr: "error: --duration needs --watch.\n" });
    expect(wrong.code).not.toBe(0);
  });

  test("ends with one line for an address without a service", async () => {
    const away = await runCli(["fleet", "--watch", "--address", "127.0.0.1:1"]);
    expect(away).toMatchObject({ code: 3, stdout: "" });
    expect(away.stderr).toMatch(/^error: [^\n]*\n$/);
  });
});

describe("agents watch", () => {
  test("prints agents and changes in the contract's JSON, and resumes from a revision", async () => {
    const { agentId, claw } = await newAgent();
    const watch = startCli(["agents", "watch", "--claw", claw, "-o", "jsonl"], env());
    await vi.waitFor(() => expect(documents(watch.stdout)).toHaveLength(2), soon);
    await said("agents", "status", agentId, "busy");
    await vi.waitFor(() => expect(documents(watch.stdout)).toHaveLength(3), soon);
    watch.signal("SIGINT");
    const { code, stdout, stderr } = await watch.done;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const [agent, bookmark, change] = documents(stdout);
    expect(agent).toMatchObject({ agent: { agentId, status: "AGENT_STATUS_IDLE" } });
    expect(bookmark).toMatchObject({ revision: expect.any(String), bookmark: { snapshotComplete: true } });
    const busy = { type: "AGENT_CHANGE_TYPE_UPDATED", transition: { toStatus: "AGENT_STATUS_BUSY" } };
    expect(change).toMatchObject(busy);

    const resumed = ["agents", "watch", "--claw", claw, "--from", String(bookmark?.revision), "--duration", "500ms"];
    expect(documents(await said(...resumed, "-o", "jsonl"))[0]).toMatchObject(busy);
    expect(JSON.parse((await said(...resumed, "-o", "json")).split("\n}\n")[0]?.concat("}") ?? "")).toMatchObject(busy);
  });

  test("prints plain lines without a terminal", async () => {
    const { agentId, claw } = await newAgent();
    const watch = startCli(["agents", "watch", "--agent", agentId], env());
    await vi.waitFor(() => expect(watch.stdout).toContain("snapshot of 1 agent"), soon);
    await said("agents", "move", agentId, `${claw}-2`);
    await said("users", "get", "--by", "agent-id", agentId);
    await vi.waitFor(() => expect(watch.stdout).toContain("[moved]"), soon);
    watch.signal("SIGTERM");
    const { code, stdout } = await watch.done;
    expect(code).toBe(0);
    expect(stdout).toMatch(
      new RegExp(`^agent ${agentId} idle \\[${claw}\\]\nsnapshot of 1 agent as of revision \\d+\n`),
    );
    expect(stdout).toMatch(
      new RegExp(`^\\d\\d:\\d\\d:\\d\\d ${agentId} idle -> idle \\[moved\\] ${claw} -> ${claw}-2$`, "m"),
    );
  });

  test("ends with one line for an invalid watch", async () => {
    const away = await runCli(["agents", "watch", "--address", "127.0.0.1:1"]);
    expect(away).toMatchObject({
      code: 3,
      stdout: "",
      stderr: expect.stringMatching(/^error: The service at .+ is unreachable .+\n$/),
    });
    const future = await runCli(["agents", "watch", "--from", "9223372036854775807"], env());
    expect(future).toMatchObject({ code: 5, stdout: "" });
    expect(future.stderr).toMatch(/^error: REVISION_IN_FUTURE: .+\n$/);
  });
});

describe("beat", () => {
  test("keeps an agent alive, reads statuses from standard input, and says goodbye", async () => {
    const { agentId, claw } = await newAgent();
    const beat = startCli(["beat", agentId, "--status", "on_call", "--interactive"], env());
    await vi.waitFor(() => expect(beat.stdout).toContain(`${agentId} is on_call\n`), soon);
    expect(beat.stdout).toMatch(new RegExp(`${agentId} sends heartbeats on ${claw}: every \\S+, leases of 1s500ms\n`));
    beat.stdin.write("exhausted billing 10m\n");
    await vi.waitFor(() => expect(beat.stdout).toMatch(/ is exhausted/), soon);
    beat.stdin.write("idle\n");
    await vi.waitFor(() => expect(beat.stdout).toContain(`${agentId} is idle\n`), soon);
    // Beyond its first lease, too, and beyond many later ones.
    const { lastHeartbeat } = JSON.parse(await said("agents", "get", agentId, "-o", "json"));
    await vi.waitFor(async () => {
      expect(JSON.parse(await said("agents", "get", agentId, "-o", "json")).lastHeartbeat).not.toBe(lastHeartbeat);
    }, soon);
    beat.stdin.write("quit\n");
    expect((await beat.done).code).toBe(0);
    expect(beat.stdout).toMatch(new RegExp(`${agentId} said goodbye\n$`));
    const last = documents(await said("agents", "transitions", agentId, "--limit", "1", "-o", "jsonl"));
    expect(last).toMatchObject([{ cause: "TRANSITION_CAUSE_GOODBYE" }]);
  });

  test("ends without a goodbye on request", async () => {
    const { agentId } = await newAgent();
    const stdout = await said("beat", agentId, "--status", "busy", "--no-goodbye", "--duration", "1s");
    expect(stdout).not.toContain("goodbye");
    expect(JSON.parse(await said("agents", "get", agentId, "-o", "json"))).toMatchObject({
      status: "AGENT_STATUS_BUSY",
    });
  });

  test("ends with a reason for an agent that it may not beat for", async () => {
    const { agentId } = await newAgent();
    const nobody = await runCli(["beat", "nobody"], env());
    expect(nobody).toMatchObject({
      code: 4,
      stdout: "",
      stderr: expect.stringMatching(/^error: AGENT_NOT_FOUND: .+\n$/),
    });
    const stranger = await runCli(["beat", agentId, "--claw", unique("claw")], env());
    expect(stranger).toMatchObject({ code: 5, stderr: expect.stringMatching(/^error: WRONG_CLAW: .+\n$/) });
    const first = startCli(["beat", agentId], env());
    await vi.waitFor(() => expect(first.stdout).toContain("sends heartbeats on"), soon);
    const second = startCli(["beat", agentId], env());
    expect(await first.done).toMatchObject({
      code: 5,
      stderr: expect.stringMatching(/^error: SESSION_SUPERSEDED: .+\n$/),
    });
    second.signal("SIGINT");
    expect((await second.done).code).toBe(0);
    const unclear = await runCli(["beat", agentId, "--status", "busy", "--retry-after", "1m"], env());
    expect(unclear).toMatchObject({ code: 2, stdout: "" });
  });
});

describe("simulate", () => {
  test("deletes its agents on request", async () => {
    const names = unique("sim");
    const text = await said(
      "simulate",
      "--agents",
      "20",
      "--claws",
      "2",
      "--names",
      names,
      "--duration",
      "1s",
      "--clean-up",
    );
    expect(text).toMatch(/^Duration 0:0\d: 20 agents on 2 claws, \d+ transitions: .+\.$/m);
    expect(text).toMatch(/^Claws killed: 0\. No agent that sent heartbeats lost its lease\.$/m);
    expect(await said("agents", "list", "--claw", `${names}-claw-a`, "-o", "jsonl")).toBe("");
  });

  test("rejects invalid options", async () => {
    for (const args of [
      ["--agents", "1", "--claws", "2"],
      ["--rate-limit", "2"],
      ["--names", "a b"],
      ["--speed", "0"],
    ]) {
      expect(await runCli(["simulate", ...args], env()), args.join(" ")).toMatchObject({ code: 2, stdout: "" });
    }
  });
});

test("a command ends silently when its reader closes the pipe", async () => {
  await using stage = await openStage();
  const { agentId } = await newAgent();
  const run = stage.program(["agents", "watch", "-o", "jsonl"], { env: env() });
  await vi.waitFor(() => expect(run.stdout).toContain('"snapshotComplete":true'), soon);
  run.closeStdout();
  await said("agents", "status", agentId, "busy");
  expect(await run.ended).toMatchObject({ code: 0, signal: null, stderr: "" });
});
