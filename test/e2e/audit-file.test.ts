import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { runCli } from "../support/cli.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { openStage } from "../support/program.ts";
import { unique } from "../support/service.ts";

test("a service and its commands append their audit lines to one file, and not to the log", async () => {
  await using stage = await openStage();
  await using database = await createTestDatabase();
  const file = join(stage.path, "audit.log");
  const env = { DATABASE_URL: database.url, HARBORFORGE_AUDIT_FILE: file, HARBORFORGE_LOG_LEVEL: "silent" };
  const serving = await stage.serve({ env: { ...env, HARBORFORGE_AUDIT_LOG: "admin" } });
  const address = { HARBORFORGE_ADDRESS: serving.grpc };
  const [username, agentId, principal] = [unique("user"), unique("agent"), unique("calendar")];
  await runCli(["users", "create", username, "--agent-id", agentId, "--claw", "claw-1"], address);
  await runCli(["agents", "status", agentId, "busy"], address);
  await runCli(["agents", "delete", agentId], address);
  const lines = async (): Promise<unknown[]> =>
    (await readFile(file, "utf8")).split("\n").flatMap((line): unknown[] => (line === "" ? [] : [JSON.parse(line)]));
  const method = (name: string): string => `harborforge.agents.v1.${name}`;
  // The change of the status needs no admin.
  const calls = [
    { event: "audit.call", audit: true, method: method("UserService/CreateUser"), username },
    { event: "audit.call", audit: true, method: method("AgentService/DeleteAgent"), agentId },
  ];
  await vi.waitFor(async () => expect(await lines()).toMatchObject(calls), { timeout: 20_000, interval: 20 });

  const issue = ["tokens", "issue", "--role", "service", "--principal", principal];
  const issued = await stage.program(issue, { env }).ended;
  expect(issued).toMatchObject({ code: 0, stdout: expect.stringMatching(/^hf_\w+\n$/) });
  expect(await lines()).toMatchObject([...calls, { event: "audit.command", method: "tokens issue", principal }]);

  serving.kill("SIGTERM");
  const { code, stderr } = await serving.ended;
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const refused = await stage.program(["serve"], {
    env: { ...env, HARBORFORGE_AUDIT_FILE: join(stage.path, "no/file") },
  }).ended;
  expect(refused).toMatchObject({
    code: 2,
    stdout: "",
    stderr: expect.stringMatching(/^HARBORFORGE_AUDIT_FILE: the file cannot be written \(ENOENT.+\)\.\n$/),
  });
});
