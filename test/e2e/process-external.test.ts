import { readdir } from "node:fs/promises";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { expect, test } from "vitest";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { createEmptyDatabase, createTestDatabase } from "../support/cluster.ts";
import { openStage, says } from "../support/program.ts";

test("DATABASE_URL is served instead of a database of its own, and its password is never shown", async () => {
  await using stage = await openStage();
  await using database = await createEmptyDatabase();
  const url = new URL(database.url);
  url.searchParams.set("sslmode", "disable");
  const { host, pathname, password } = url;
  const serving = await stage.serve({
    env: { DATABASE_URL: url.href, HARBORFORGE_LOG_LEVEL: "trace" },
  });
  expect(serving.stdout.split("\n")[2]).toBe(`Data  The database ${host}${pathname}`);
  await createClient(UserService, createGrpcTransport({ baseUrl: serving.grpc })).createUser({ username: "ada" });
  expect(await readdir(stage.path)).not.toContain("data");

  serving.kill("SIGTERM");
  await says(serving, /"msg":"stopped"/);
  const stoppedAt = performance.now();
  const { code, stdout, stderr } = await serving.ended;
  expect(code).toBe(0);
  // Nothing is left open that would have to be waited for.
  expect(performance.now() - stoppedAt).toBeLessThan(1_000);
  expect(stdout + stderr).not.toContain(`:${password}@`);
  // A short one could be part of any word.
  if (password.length >= 8) expect(stdout + stderr).not.toContain(password);
});

test("two that share a database know of each other's changes", async () => {
  await using stage = await openStage();
  await using database = await createTestDatabase();
  const env = { DATABASE_URL: database.url };
  const [one, other] = await Promise.all([stage.serve({ env }), stage.serve({ env })]);
  const { agent } = await createClient(UserService, createGrpcTransport({ baseUrl: one.grpc })).createUser({
    username: "ada",
    agentId: "ada-1",
    clawIdentifier: "claw-1",
  });
  const agents = createClient(AgentService, createConnectTransport({ baseUrl: other.http, httpVersion: "1.1" }));
  const found = await agents.getAgent({ key: { case: "agentId", value: "ada-1" } });
  expect(found.agent?.revision).toBe(agent?.revision);

  // The one that is killed leaves what the other has untouched.
  one.kill("SIGKILL");
  await one.ended;
  const { results } = await agents.sendHeartbeat({ beats: [{ agentId: "ada-1" }] });
  expect(results[0]?.error).toBeUndefined();
  other.kill("SIGINT");
  expect(await other.ended).toMatchObject({ code: 0 });
});

test("migrate --new-history moves revisions on, refuses a database that is not migrated, and may be repeated", async () => {
  await using stage = await openStage();
  await using database = await createEmptyDatabase();
  const env = { DATABASE_URL: database.url };
  const declare = () => stage.program(["migrate", "--new-history"], { env }).ended;
  const refused = await declare();
  expect(refused).toMatchObject({ code: 1, stdout: "" });
  expect(refused.stderr).toMatch(
    /not migrated: the schema of this service is missing\. Run "harborforge-agents migrate" first\.\n$/,
  );
  await stage.program(["migrate"], { env }).ended;
  const revisions: bigint[] = [];
  for (let n = 0; n < 2; n += 1) {
    const { code, stdout, stderr } = await declare();
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const [, from = "", to = ""] =
      / begins a new history: the last revision was (\d+), new revisions are larger than (\d+)\. /.exec(stdout) ?? [];
    revisions.push(BigInt(from), BigInt(to));
  }
  expect(revisions[2]).toBe(revisions[1]);
  expect(new Set(revisions).size).toBe(3);
  expect(revisions).toEqual(revisions.toSorted((one, other) => (one < other ? -1 : 1)));
});

test("migrate brings a database to the newest schema, also when several do so at once", async () => {
  await using stage = await openStage();
  await using database = await createEmptyDatabase();
  const env = { DATABASE_URL: database.url };
  const endings = await Promise.all([1, 2, 3].map(() => stage.program(["migrate"], { env }).ended));
  for (const ending of endings) expect(ending).toMatchObject({ code: 0, stderr: "" });
  const said = endings.map(({ stdout }) => stdout).sort();
  expect(said.filter((line) => /was migrated: 0001_tables, /.test(line))).toHaveLength(1);
  expect(said.filter((line) => /is at the newest schema already\.\n$/.test(line))).toHaveLength(2);
  const serving = await stage.serve({ env });
  expect(serving.stderr).not.toMatch(/migrated the database/);
});
