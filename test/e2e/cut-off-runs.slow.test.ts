import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { commandLine, END_MS, kill, parentOf, Run, START_MS, serves, VITEST } from "../support/cut-off-run.ts";
import { until } from "../support/until.ts";

/**
 * Programs in a form that lasts longer than it takes to end them, and the number of services or servers that
 * shows a running one.
 */
const PROGRAMS: readonly (readonly [
  name: string,
  args: readonly string[],
  inItsMidst: (run: Run) => Promise<boolean>,
])[] = [
  [
    "the tests of a file in test/integration",
    [...VITEST, "test/integration/gap-rule.slow.test.ts"],
    async (run) => (await run.databasePorts()).length > 0,
  ],
  [
    "the tests of the embedded PostgreSQL",
    [...VITEST, "packages/embedded-postgres/test/embedded-postgres.slow.test.ts"],
    async (run) => (await run.databasePorts()).length > 1,
  ],
  ["the tests of a file in test/e2e", [...VITEST, "test/e2e/process.slow.test.ts"], serves],
  [
    "the tests of a terminal",
    [...VITEST, "test/e2e/cli-terminal.test.ts"],
    async (run) => run.running("src/main.ts") > 0,
  ],
  ["the chaos program", ["scripts/chaos.ts", "--seconds", "60", "--agents", "60", "--claws", "3"], serves],
  [
    "the check of watchers",
    ["test/watch-check/main.ts", "1-9", "30"],
    async (run) => run.running("replica-process.ts") > 0,
  ],
  ["the fuzzer", ["scripts/fuzz.ts", "--minutes", "2"], serves],
  [
    "the bench",
    ["bench/main.ts", "--only", "calls", "--seconds", "9", "--out", "/nonexistent/harborforge-bench"],
    serves,
  ],
];

const isLinux = process.platform === "linux";

describe.runIf(isLinux)("a killed run leaves nothing behind", { timeout: START_MS + 2 * END_MS }, () => {
  const unit = { name: "the unit tests", args: [...VITEST, "--project", "unit"] };
  test.each([...PROGRAMS.map(([name, args]) => ({ name, args })), unit])("killed at its start: $name", async ({
    args,
  }) => {
    await using run = await Run.start(args);
    const afterMs = Math.random() * 1_500;
    await delay(afterMs);
    const ports = await run.ports();
    kill(run.pid, "SIGKILL");
    await run.leavesNothing(ports);
  });

  test.each(PROGRAMS)("killed in the middle: %s", async (_name, args, inItsMidst) => {
    await using run = await Run.start(args);
    await run.reaches("it is in its midst", () => inItsMidst(run));
    await delay(Math.random() * 500);
    const ports = await run.ports();
    expect(ports.length).toBeGreaterThan(0);
    kill(run.pid, "SIGKILL");
    await run.leavesNothing(ports);
  });

  test.each(
    [PROGRAMS[0], PROGRAMS[2], PROGRAMS[4], PROGRAMS[6]].flatMap((program) => (program === undefined ? [] : [program])),
  )("interrupted by Ctrl-C: %s", async (_name, args, inItsMidst) => {
    await using run = await Run.start(args);
    await run.reaches("it is in its midst", () => inItsMidst(run));
    kill(-run.pid, "SIGINT");
    await run.leavesNothing([]);
  });

  test("a killed process of one test file ends everything that it started", async () => {
    await using run = await Run.start([...VITEST, "test/e2e/process.slow.test.ts"]);
    await run.reaches("a service serves", () => serves(run));
    const isFork = (pid: number) => parentOf(pid) === run.pid && !commandLine(pid).includes("process-owner");
    const forks = run.processes().filter(isFork);
    expect(forks.length).toBeGreaterThan(0);
    for (const pid of forks) kill(pid, "SIGKILL");
    await until("the service is gone", () => run.running("src/main.ts") === 0, END_MS);
    await run.leavesNothing([]);
  });
});
