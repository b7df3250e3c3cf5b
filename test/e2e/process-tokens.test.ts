import { expect, test } from "vitest";
import { createTestDatabase } from "../support/cluster.ts";
import { openStage } from "../support/program.ts";

async function listAgents(http: string, token: string): Promise<number> {
  const response = await fetch(`${http}/harborforge.agents.v1.AgentService/ListAgents`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
    body: "{}",
  });
  await response.text();
  return response.status;
}

test("a non-loopback listener requires credentials and encryption", async () => {
  await using stage = await openStage();
  await using database = await createTestDatabase();
  const start = (env: Record<string, string>) =>
    stage.program(["serve"], { env: { DATABASE_URL: database.url, HARBORFORGE_HTTP_ADDRESS: "0.0.0.0:0", ...env } });
  const [open, cleartext, missing] = await Promise.all([
    start({}).ended,
    start({ HARBORFORGE_AUTH: "required" }).ended,
    start({
      HARBORFORGE_AUTH: "required",
      HARBORFORGE_TLS_IN_FRONT: "yes",
      HARBORFORGE_JWT_JWKS: "/nowhere.json",
      HARBORFORGE_JWT_ISSUER: "https://id.example.org",
      HARBORFORGE_JWT_AUDIENCE: "agents",
    }).ended,
  ]);
  expect(open).toMatchObject({ code: 2, stdout: "" });
  expect(open.stderr).toMatch(/^HARBORFORGE_HTTP_ADDRESS is 0\.0\.0\.0:0, .*set HARBORFORGE_AUTH=required.*\n$/);
  expect(cleartext).toMatchObject({ code: 2, stdout: "" });
  expect(cleartext.stderr).toMatch(/^HARBORFORGE_HTTP_ADDRESS is 0\.0\.0\.0:0, .*HARBORFORGE_TLS_CERT_FILE.*\n$/);
  expect(missing).toMatchObject({ code: 2, stdout: "" });
  expect(missing.stderr).toMatch(/^HARBORFORGE_JWT_JWKS: the file is not usable: .*\/nowhere\.json.*\n$/);

  const serving = await stage.serve({
    env: {
      DATABASE_URL: database.url,
      HARBORFORGE_HTTP_ADDRESS: "0.0.0.0:0",
      HARBORFORGE_AUTH: "required",
      HARBORFORGE_TLS_IN_FRONT: "yes",
    },
  });
  const { port } = new URL(serving.http);
  expect(await listAgents(`http://127.0.0.1:${port}`, "hf_nothing")).toBe(401);
});
