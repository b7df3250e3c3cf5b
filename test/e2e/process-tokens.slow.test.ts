import { expect, test } from "vitest";
import { createTestDatabase } from "../support/cluster.ts";
import { openStage, type Running } from "../support/program.ts";
import { until } from "../support/until.ts";

async function said(running: Running): Promise<{ readonly stdout: string; readonly stderr: string }> {
  const { code, stdout, stderr } = await running.ended;
  expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
  return { stdout, stderr };
}

async function listAgents(http: string, token: string): Promise<number> {
  const response = await fetch(`${http}/harborforge.agents.v1.AgentService/ListAgents`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
    body: "{}",
  });
  await response.text();
  return response.status;
}

test("the command line issues the first token, also beside a running service", {
  timeout: 120_000,
}, async () => {
  await using stage = await openStage();
  const tokens = (...args: string[]) => said(stage.program(["tokens", ...args]));
  const first = await tokens("issue", "--role", "admin", "--principal", "ada", "--lifetime", "2d");
  // On standard output there is the token and nothing else.
  expect(first.stdout).toMatch(/^hf_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}\n$/);
  const secret = first.stdout.trim();
  expect(first.stderr).not.toContain(secret);

  const serving = await stage.serve({ env: { HARBORFORGE_AUTH: "required" } });
  expect(serving.stdout).toContain("tokens issue --role admin");
  expect(await listAgents(serving.http, secret)).toBe(200);
  expect(await listAgents(serving.http, "hf_nothing")).toBe(401);

  const claw = await tokens("issue", "--role", "agent", "--principal", "claw-7", "--claw", "claw-7");
  const agents = ["--agent-id", "a-1", "--agent-id", "a-2"];
  await tokens("issue", "--role", "agent", "--principal", "both", ...agents);
  const { stdout: list } = await tokens("list");
  const rows = list
    .trimEnd()
    .split("\n")
    .map((line) => line.split("\t"));
  expect(rows.map(([, role, principal, , state, whom]) => [role, principal, state, whom ?? ""])).toEqual([
    ["ROLE", "PRINCIPAL", "STATE", "FOR"],
    ["admin", "ada", "valid", ""],
    ["agent", "claw-7", "valid", "claw claw-7"],
    ["agent", "both", "valid", "a-1,a-2"],
  ]);
  for (const token of [secret, claw.stdout.trim()]) expect(list).not.toContain(token.split("_")[2]);

  const [, keyId = ""] = secret.split("_");
  expect((await tokens("revoke", keyId)).stdout).toContain(`${keyId} of ada is revoked`);
  await until("the service has heard of it", async () => (await listAgents(serving.http, secret)) === 401);
  serving.kill("SIGTERM");
  const { code, stderr } = await serving.ended;
  expect(code).toBe(0);
  expect(stderr).not.toContain(secret.split("_")[2]);
});

test("a failed issue or revocation is reported in a sentence", { timeout: 120_000 }, async () => {
  await using stage = await openStage();
  await using database = await createTestDatabase();
  const env = { DATABASE_URL: database.url };
  const refused = async (code: number, sentence: RegExp, ...args: string[]): Promise<void> => {
    const ending = await stage.program(["tokens", ...args], { env }).ended;
    expect(ending.stderr).toMatch(sentence);
    expect(ending).toMatchObject({ code, stdout: "" });
  };
  await Promise.all([
    refused(2, /--role/, "issue", "--principal", "x"),
    refused(2, /root/, "issue", "--role", "root", "--principal", "x"),
    refused(2, /either --agent-id or --claw/, "issue", "--role", "agent", "--principal", "x"),
    refused(2, /must be agent for --agent-id or --claw/, "issue", "--role", "admin", "--principal", "x", "--claw", "c"),
    refused(2, /--lifetime must be a duration/, "issue", "--role", "admin", "--principal", "x", "--lifetime", "367d"),
    refused(4, /key_id: no token has this key id/, "revoke", "nothing"),
  ]);
});
