import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCli } from "../support/cli.ts";
import { temporaryFolder } from "../support/owned-process.ts";
import { unique, useService } from "../support/service.ts";

const service = useService();
let folder: string;

beforeAll(async () => {
  folder = await temporaryFolder("enrol");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function command(...args: readonly string[]) {
  return runCli([...args, "--address", service().addresses.grpc]);
}

/** A configuration as OpenClaw writes it and people edit it: JSON5. */
function configFile(text: string): string {
  const path = join(folder, `${unique("openclaw")}.json`);
  writeFileSync(path, text);
  return path;
}

describe("agents enrol", () => {
  it("prints its plan, creates what is missing, and can be repeated", async () => {
    const claw = unique("claw");
    const from = configFile(`{
      // two agents, one with another name, one that is not reported
      agents: { entries: { main: {}, Bob: {}, carol: {} } },
      plugins: { entries: { harborforge: { config: { claw: "${claw}", agents: { bob: "${claw}-bob", carol: false } } } } },
    }`);
    const plan = await command("agents", "enrol", "--claw", claw, "--from", from, "--dry-run");
    expect(plan).toMatchObject({ code: 0 });
    expect(plan.stdout).toBe(
      `${claw}/main: create the user and the agent\n${claw}-bob: create the user and the agent\nNothing was changed.\n`,
    );
    const done = await command("agents", "enrol", "--claw", claw, "--from", from);
    expect(done).toMatchObject({ code: 0 });
    expect(done.stdout).toContain("Created 2 of 2 agents.\n");
    const again = await command("agents", "enrol", "--from", from);
    expect(again).toMatchObject({ code: 0 });
    expect(again.stdout).toBe(`${claw}/main: exists\n${claw}-bob: exists\nCreated 0 of 2 agents.\n`);
  });

  it("never moves an agent", async () => {
    const [claw, other] = [unique("claw"), unique("other")];
    await command("users", "create", `${claw}/main`, "--agent-id", `${claw}/main`, "--claw", other);
    const from = configFile("{ agents: { entries: { main: {}, bob: {} } } }");
    const done = await command("agents", "enrol", "--claw", claw, "--from", from);
    expect(done.code).toBe(5);
    expect(done.stdout).toContain(`${claw}/main: is on claw "${other}" and stays there.`);
    expect(done.stdout).toContain("Created 1 of 2 agents.\n");
    expect((await command("agents", "get", `${claw}/main`)).stdout).toContain(other);
  });

  it("gives a user without an agent its agent, and leaves a user with another one", async () => {
    const claw = unique("claw");
    await command("users", "create", `${claw}/main`);
    await command("users", "create", `${claw}/bob`, "--agent-id", `${claw}-x`, "--claw", claw);
    const from = configFile("{ agents: { entries: { main: {}, bob: {} } } }");
    const done = await command("agents", "enrol", "--claw", claw, "--from", from);
    expect(done.code).toBe(5);
    expect(done.stdout).toContain(`${claw}/main: create the agent of the user with this name\n`);
    expect(done.stdout).toContain(`${claw}/bob: the user with this name has the agent "${claw}-x".`);
    expect((await command("agents", "get", `${claw}/main`)).code).toBe(0);
  });

  it.each([
    ["{", "cannot be read"],
    ["[]", "name no claw"],
    ["7", "has no object"],
    ["{}", "name no claw"],
    ['{ agents: { $include: "x.json" } }', "includes other files"],
  ])("rejects the configuration %s", async (text, problem) => {
    const result = await command("agents", "enrol", "--from", configFile(text));
    expect(result.code).toBe(2);
    expect(result.stderr).toContain(problem);
  });

  it("rejects another claw than the plugin's settings name", async () => {
    const from = configFile('{ plugins: { entries: { harborforge: { config: { claw: "claw-1" } } } } }');
    const result = await command("agents", "enrol", "--claw", "claw-2", "--from", from);
    expect(result.code).toBe(2);
    expect(result.stderr).toContain('name the claw "claw-1", not "claw-2"');
  });
});
