import { randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import { cp, mkdir, rm, writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { describe, expect, test } from "vitest";
import { commandLine, END_MS, kill, MARK, Run, START_MS, serves, VITEST } from "../support/cut-off-run.ts";
import { processesMarked } from "../support/left-behind.ts";
import { spawn, temporaryFolder } from "../support/owned-process.ts";
import { checkout } from "../support/program.ts";
import { until } from "../support/until.ts";

const isLinux = process.platform === "linux";

describe.runIf(isLinux)("a killed run leaves nothing behind", { timeout: START_MS + 2 * END_MS }, () => {
  test("killed in the middle: the tests of a program", async () => {
    await using run = await Run.start([...VITEST, "test/e2e/process-external.test.ts"]);
    await run.reaches("a service serves", () => serves(run));
    const ports = await run.ports();
    expect(ports.length).toBeGreaterThan(0);
    kill(run.pid, "SIGKILL");
    await run.leavesNothing(ports);
  });

  // With an `npm` that only waits: the real one would reinstall the packages of this run of tests.
  test("killed alone: .ci/run", async () => {
    const folder = await temporaryFolder("ci");
    const [programs, files] = [join(folder, "bin"), join(folder, "tmp")];
    for (const path of [programs, files]) await mkdir(path);
    await cp(join(checkout, ".ci"), join(folder, ".ci"), { recursive: true });
    await writeFile(join(programs, "npm"), '#!/bin/sh\n[ "$1" = ci ] && exit 0\nsetsid sleep 600 &\nsleep 600\n', {
      mode: 0o755,
    });
    const id = randomBytes(8).toString("hex");
    const run = spawn("bash", [join(folder, ".ci/run")], {
      env: { PATH: [programs, process.env.PATH].join(delimiter), TMPDIR: files, [MARK]: id },
      stdio: "ignore",
      detached: true,
    });
    const processes = () => processesMarked(MARK, (value) => value === id).map(commandLine);
    await until("its tests run", () => processes().filter((line) => line.startsWith("sleep")).length === 2, START_MS);
    run.kill("SIGKILL");
    await until("all of it is gone", () => processes().length + readdirSync(files).length === 0, END_MS);
    await rm(folder, { recursive: true });
  });
});
