import { readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { CREDENTIALS } from "../support/access.ts";
import { runCli, startCli } from "../support/cli.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { temporaryFolder } from "../support/owned-process.ts";
import { openStage, says } from "../support/program.ts";
import { startService, unique, useService } from "../support/service.ts";

const INTERVAL_MS = 500;
const pace = { shortestIntervalMs: INTERVAL_MS, heartbeatsPerSecond: 10_000 };
const service = useService({ pace });
const soon = { timeout: 30_000, interval: 20 };

const fleet = (names: string): string[] => [
  "--agents",
  "2",
  "--claws",
  "1",
  "--no-calendar",
  "--speed",
  "20",
  "--names",
  names,
];

describe("a simulation waits for a service that is starting", () => {
  test("and says so, once", async () => {
    await using proxy = await openProxy();
    proxy.cut();
    const simulation = startCli(["simulate", ...fleet(unique("sim")), "--duration", "2s", "--address", proxy.address]);
    await vi.waitFor(() => expect(simulation.stderr).toMatch(/^Waiting up to 30s for the service at .+\n$/), soon);
    proxy.mend();
    const { code, stdout, stderr } = await simulation.done;
    expect({ code, lines: stderr.trimEnd().split("\n").length }).toEqual({ code: 0, lines: 1 });
    expect(stdout).toContain(": 2 agents on 1 claw, ");
  });

  test("up to --wait, and stops on Ctrl-C", async () => {
    const dead = ["--address", "127.0.0.1:1"];
    const none = await runCli(["simulate", "--wait", "0s", ...dead]);
    expect(none).toMatchObject({ code: 3, stdout: "", stderr: expect.stringMatching(/^error: .+ is unreachable/) });
    const short = await runCli(["simulate", "--wait", "1s", ...dead]);
    expect(short).toMatchObject({ code: 3, stderr: expect.stringMatching(/^Waiting up to 1s .+\nerror: .+\n$/) });
    const waiting = startCli(["simulate", ...dead]);
    await vi.waitFor(() => expect(waiting.stderr).toContain("Waiting"), soon);
    waiting.signal("SIGINT");
    expect(await waiting.done).toMatchObject({ code: 0, stdout: "" });
  });
});

describe("an outage of the simulation itself is no fault of the service", () => {
  test("when the whole simulation is suspended", async () => {
    await using stage = await openStage();
    const names = unique("sim");
    const simulation = stage.program([
      ...["simulate", ...fleet(names), "--no-faults", "--transitions"],
      ...["--address", service().addresses.grpc],
    ]);
    await says(simulation, /-> (on_call|busy|idle) \[report\]/);
    simulation.kill("SIGSTOP");
    await offline(names);
    simulation.kill("SIGCONT");
    await says(simulation, /did not run or had no network for .+: its leases expired/);
    simulation.kill("SIGINT");
    const { code, stdout } = await simulation.ended;
    expect(stdout).toContain("No agent that sent heartbeats lost its lease.");
    expect(stdout).toMatch(/^2 leases expired while the simulation itself did not run or had no network: /m);
    expect(code).toBe(0);
  });

  test("when one of its claws is suspended, although the others run", async () => {
    await using stage = await openStage();
    const names = unique("sim");
    const simulation = stage.program([
      ...["simulate", ...fleet(names), "--no-faults", "--processes", "-o", "table", "--transitions"],
      ...["--address", service().addresses.grpc],
    ]);
    await says(simulation, /-> (on_call|busy|idle) \[report\]/);
    const claw = Number(/starts with 2 agents \(process (\d+)\)/.exec(simulation.stdout)?.[1]);
    process.kill(claw, "SIGSTOP");
    await offline(names);
    process.kill(claw, "SIGCONT");
    await says(simulation, /offline -> \S+ \[(heartbeat|report)\]/);
    simulation.kill("SIGINT");
    const { code, stdout } = await simulation.ended;
    expect(stdout).toMatch(/^2 leases expired while the simulation itself did not run or had no network: /m);
    expect(code).toBe(0);
  });

  test("but an expired lease of a claw that runs is one, such as when the network loses its heartbeats", async () => {
    await using proxy = await openProxy();
    const names = unique("sim");
    const simulation = startCli([
      "simulate",
      ...fleet(names),
      "--no-faults",
      "--transitions",
      "--address",
      proxy.address,
    ]);
    await vi.waitFor(() => expect(simulation.stdout).toMatch(/-> (on_call|busy|idle) \[report\]/), soon);
    proxy.swallow();
    await offline(names);
    proxy.mend();
    await vi.waitFor(() => expect(simulation.stdout.match(/\[lease_expired\]/g)).toHaveLength(2), soon);
    simulation.signal("SIGINT");
    const { code, stdout } = await simulation.done;
    expect(stdout).toMatch(/^2 agents that sent heartbeats lost their leases: this is a fault\.$/m);
    expect(code).toBe(1);
  });
});

/** A path to the service that a test can break. */
function openProxy(): Promise<FaultProxy> {
  const port = Number(new URL(`http://${service().addresses.grpc}`).port);
  return FaultProxy.open(() => [port]);
}

/** Waits until all agents of a simulation are offline, in the database. */
async function offline(names: string): Promise<void> {
  await vi.waitFor(async () => {
    const rows = await service().query<{ status: string }>(
      "SELECT status FROM agents WHERE claw_identifier LIKE $1",
      `${names}%`,
    );
    expect(rows.map(({ status }) => status)).toEqual(["offline", "offline"]);
  }, soon);
}

test("a simulation says which tokens it needs, and tokens issue --for-simulate writes them", async () => {
  await using secured = await startService({ pace, access: CREDENTIALS });
  const folder = await temporaryFolder("simulation");
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(folder, { recursive: true, force: true }));
  await using stage = await openStage();
  const names = unique("sim");
  const args = [...fleet(names), "--no-faults", "--duration", "3s", "--address", secured.addresses.grpc];

  const nothing = await runCli(["simulate", ...args]);
  const advice = `"harborforge-agents tokens issue --for-simulate DIR --names ${names} --claws 1" writes both.`;
  expect(nothing).toMatchObject({ code: 6, stderr: expect.stringContaining(advice) });

  const env = { DATABASE_URL: secured.databaseUrl };
  const issue = ["tokens", "issue", "--for-simulate", join(folder, "new"), "--names", names, "--claws", "1"];
  const issued = await stage.program(issue, { env }).ended;
  expect(issued).toMatchObject({ code: 0, stdout: "" });
  const [admin, claws] = ["admin.token", "claws.tokens"].map((name) => join(folder, "new", name));
  if (admin === undefined || claws === undefined) throw new Error("there are two files");
  for (const file of [admin, claws]) expect((await stat(file)).mode & 0o777).toBe(0o600);
  expect(issued.stderr).toContain(
    `Run: harborforge-agents simulate --names ${names} --claws 1 --token-file ${admin} --claw-tokens ${claws}\n`,
  );
  // Not even the log has the tokens.
  const secret = (await readFile(admin, "utf8")).trim();
  expect(issued.stderr).not.toContain(secret);

  const withoutClaws = await runCli(["simulate", ...args, "--token-file", admin]);
  expect(withoutClaws).toMatchObject({ code: 6, stderr: expect.stringContaining(advice) });
  const simulated = await runCli(["simulate", ...args, "--token-file", admin, "--claw-tokens", claws]);
  expect(simulated).toMatchObject({ code: 0, stdout: expect.stringContaining("2 agents on 1 claw") });

  const again = await stage.program(issue, { env }).ended;
  expect(again).toMatchObject({ code: 2, stderr: expect.stringContaining(`${admin} exists already.`) });
  const replaced = await stage.program([...issue, "--overwrite"], { env }).ended;
  expect(replaced).toMatchObject({
    code: 0,
    stderr: expect.stringContaining(`Replaced ${admin}, readable by you only.`),
  });
  expect((await readFile(admin, "utf8")).trim()).not.toBe(secret);
  // A principal has at most two valid tokens: a third set is refused, and none of it is left behind.
  const third = await stage.program([...issue, "--overwrite"], { env }).ended;
  expect(third).toMatchObject({ code: 5 });
  const valid = await secured.query("SELECT 1 FROM api_tokens WHERE revoked_at IS NULL");
  expect(valid).toHaveLength(4);
}, 60_000);

describe("tokens issue --output-file", () => {
  test("writes the token to a new file that only this user can read, and prints none of it", async () => {
    await using stage = await openStage();
    const env = { DATABASE_URL: service().databaseUrl };
    const file = join(stage.path, "calendar.token");
    const issue = ["tokens", "issue", "--role", "service", "--principal", unique("calendar"), "--output-file", file];
    const issued = await stage.program(issue, { env }).ended;
    expect(issued).toMatchObject({ code: 0, stdout: "" });
    expect(issued.stderr).toContain(`Wrote ${file}, readable by you only.\n`);
    const token = await readFile(file, "utf8");
    expect(token).toMatch(/^hf_\w+\n$/);
    expect(issued.stderr).not.toContain(token.trim());
    expect((await stat(file)).mode & 0o777).toBe(0o600);

    const again = await stage.program(issue, { env }).ended;
    expect(again).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/calendar\.token exists already\. .+--overwrite/),
    });
    expect(await readFile(file, "utf8")).toBe(token);
    await writeFile(file, "of another program", { mode: 0o644 });
    const replaced = await stage.program([...issue, "--overwrite"], { env }).ended;
    expect(replaced).toMatchObject({ code: 0, stderr: expect.stringContaining(`Replaced ${file}, `) });
    expect(await readFile(file, "utf8")).toMatch(/^hf_\w+\n$/);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
  });

  test("makes no token that cannot be written", async () => {
    await using stage = await openStage();
    const principal = unique("calendar");
    const args = ["tokens", "issue", "--role", "service", "--principal", principal, "--output-file"];
    const env = { DATABASE_URL: service().databaseUrl };
    const failed = await stage.program([...args, join(stage.path, "gone/file")], { env }).ended;
    expect(failed).toMatchObject({
      code: 2,
      stdout: "",
      stderr: expect.stringMatching(/gone\/file cannot be created: /),
    });
    expect(await service().query("SELECT 1 FROM api_tokens WHERE principal = $1", principal)).toEqual([]);
  });
});
