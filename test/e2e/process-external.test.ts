import { readdir } from "node:fs/promises";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { expect, test } from "vitest";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { createEmptyDatabase, createTestDatabase } from "../support/cluster.ts";
import { openStage, says } from "../support/program.ts";

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
