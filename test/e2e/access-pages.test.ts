import { beforeAll, describe, expect, test } from "vitest";
import { ROLES, type Role } from "../../src/domain/principal.ts";
import { CREDENTIALS, forClaw, openMint } from "../support/access.ts";
import { useService } from "../support/service.ts";

const service = useService({ access: CREDENTIALS });
const secrets = new Map<Role, string>();

beforeAll(async () => {
  await using mint = openMint(service().databaseUrl);
  for (const role of ROLES) {
    secrets.set(role, (await mint.issue(role === "agent" ? forClaw("claw-1") : { role })).secret);
  }
});

const page = (path: string, token?: string): Promise<Response> =>
  fetch(`http://${service().addresses.http}${path}`, {
    headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
  });

test.each(["/healthz", "/readyz"])("%s needs no credential, because probes have none", async (path) => {
  expect((await page(path)).status).toBe(200);
});

test("/ says to people what the service is, with links and without a credential", async () => {
  const answer = await page("/");
  expect(answer.status).toBe(200);
  expect(answer.headers.get("content-type")).toBe("text/html; charset=utf-8");
  const html = await answer.text();
  expect(html).toContain("<h1>HarborForge Agents</h1>");
  for (const path of ["/healthz", "/readyz", "/metrics"]) expect(html).toContain(`<a href="${path}">${path}</a>`);
  for (const method of ["AgentService/WatchAgents", "UserService/CreateUser"]) {
    expect(html).toContain(`<code>/harborforge.agents.v1.${method}</code>`);
  }
  expect(html).toContain("-d '{}' \\\n");
  expect(html).not.toMatch(/<script|undefined/);
});

describe("/metrics", () => {
  test("requires a credential", async () => {
    const answer = await page("/metrics");
    expect(answer.status).toBe(401);
    expect(answer.headers.get("www-authenticate")).toBe("Bearer");
    expect(await answer.text()).not.toContain("harborforge_");
    expect((await page("/metrics", "hf_wrong")).status).toBe(401);
  });

  test.each([
    ["agent", 403],
    ["service", 200],
    ["admin", 200],
    ["viewer", 200],
  ] as const)("answers the role %s with %i", async (role, status) => {
    const answer = await page("/metrics", secrets.get(role));
    expect(answer.status).toBe(status);
    expect((await answer.text()).includes("harborforge_rpc_calls_total")).toBe(status === 200);
  });
});
