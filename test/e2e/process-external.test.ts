import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { expect, test } from "vitest";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { administer, createEmptyDatabase, createTestDatabase } from "../support/cluster.ts";
import { openOwnedDatabase } from "../support/owned-database.ts";
import { openStage, says } from "../support/program.ts";
import { until } from "../support/until.ts";

test("DATABASE_URL replaces the embedded database, and the service never shows its password", async () => {
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
  await says(serving, /"event":"service.stopped"/);
  // An open resource would delay the end: an idle connection to the database keeps a process for 30 s.
  const ended = AbortSignal.timeout(25_000);
  const { code, stdout, stderr } = await serving.ended;
  expect(ended.aborted).toBe(false);
  expect(code).toBe(0);
  expect(stdout + stderr).not.toContain(`:${password}@`);
  // A short one could be part of any word.
  if (password.length >= 8) expect(stdout + stderr).not.toContain(password);
});

test("two services on one database see each other's changes", async () => {
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

  // The killed one leaves the other's resources untouched.
  one.kill("SIGKILL");
  await one.ended;
  const { results } = await agents.sendHeartbeat({ beats: [{ agentId: "ada-1" }] });
  expect(results[0]?.error).toBeUndefined();
  other.kill("SIGINT");
  expect(await other.ended).toMatchObject({ code: 0 });
});

test("a password that changes in DATABASE_URL_FILE is used without a restart", async () => {
  await using stage = await openStage();
  await using database = await openOwnedDatabase();
  const file = join(stage.path, "database-url");
  await writeFile(file, `${database.url}\n`);
  const serving = await stage.serve({ env: { DATABASE_URL_FILE: file } });
  const readyz = async () => (await fetch(`${serving.http}/readyz`)).status;
  expect(await readyz()).toBe(200);

  const url = new URL(database.url);
  url.password = "hunter2 p@ss/word";
  const elsewhere = new URL(database.adminUrl);
  elsewhere.pathname = "/postgres";
  await administer(
    elsewhere.href,
    `ALTER ROLE ${database.role} PASSWORD 'hunter2 p@ss/word'`,
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${database.role}'`,
  );
  await until("the old password is rejected", async () => (await readyz()) === 503);
  expect(await (await fetch(`${serving.http}/readyz`)).text()).toContain("it rejects the login (SQLSTATE 28P01)");
  await writeFile(file, `${url.href}\n`);
  await until("the new password is used", async () => (await readyz()) === 200);
  const users = createClient(UserService, createGrpcTransport({ baseUrl: serving.grpc }));
  await users.createUser({ username: "ada" });
  serving.kill("SIGTERM");
  const { stdout, stderr } = await serving.ended;
  for (const password of [new URL(database.url).password, "hunter2", "p@ss"]) {
    expect(stdout + stderr).not.toContain(password);
  }
});
