import { ConnectError } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { forAgents } from "../support/access.ts";
import { deploy, expectUnauthenticated, openStreams } from "../support/access-deployment.ts";
import { newAgent } from "../support/contract-steps.ts";
import { GRPC_JS, openClients, PROTOCOLS } from "../support/protocol-clients.ts";

test("a revoked token ends its streams on every replica and listener, no other streams, and opens no new ones", async () => {
  await using deployment = await deploy({ replicas: 2 });
  const { mint, admin } = deployment;
  const { agentId } = await newAgent(admin);
  const { secret, token } = await mint.issue(forAgents(agentId));
  const other = await mint.issue({ role: "viewer" });
  await using streams = await openStreams(deployment, secret, agentId);
  await using others = await openStreams(deployment, other.secret, undefined);
  await streams.beating[0]?.say({ agentId });

  await admin.tokens.revokeToken({ keyId: token.keyId });
  await streams.untilAllEnded();
  for (const { ended } of [...streams.beating, ...streams.watching]) expectUnauthenticated(ended);
  for (const { agents } of streams.clients) {
    const error = await agents.listAgents({}).then(
      () => undefined,
      (thrown: unknown) => ConnectError.from(thrown),
    );
    expectUnauthenticated(error);
  }
  expect(others.watching.map(({ ended }) => ended)).toEqual(others.watching.map(() => undefined));
});

test("logs contain no credential at any level, and every change has its line in the audit log", async () => {
  await using deployment = await deploy({ replicas: 1 });
  const { mint, admin, replicas, logged } = deployment;
  const [addresses] = replicas;
  if (addresses === undefined) throw new Error("no replica");
  const { agentId } = await newAgent(admin);
  const issued = await admin.tokens.issueToken({ principal: "cal", role: 2, requestId: "audit-1" });
  const { secret, token } = await mint.issue({ role: "service" });
  const shown = [issued.secret, secret, "hf_ThisOneIsWrong_x", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSJ9.c2VjcmV0LXNpZw"];
  for (const protocol of PROTOCOLS) {
    for (const each of shown) {
      using clients = openClients(protocol, addresses, each);
      await clients.agents.getAgent({ key: { case: "agentId", value: "nobody" } }).catch(() => undefined);
      await clients.users.createUser({ username: "x" }).catch(() => undefined);
    }
  }
  using service = openClients(GRPC_JS, addresses, secret);
  await service.agents.updateAgentStatus({ agentId, status: 3 });
  await admin.agents.deleteAgent({ agentId });
  await admin.tokens.revokeToken({ keyId: issued.token?.keyId ?? "" });

  const lines = logged.map((line): Record<string, unknown> => JSON.parse(line)).filter(({ audit }) => audit === true);
  const told = lines.map(({ method, actor }) => `${String(method).replace(/.*\//, "")} by ${actor}`);
  const byAdmin = String(lines[0]?.actor);
  expect(byAdmin).toMatch(/^user:admin-/);
  expect(told).toEqual([
    `CreateUser by ${byAdmin}`,
    `IssueToken by ${byAdmin}`,
    `UpdateAgentStatus by service:${token.principal}`,
    `DeleteAgent by ${byAdmin}`,
    `RevokeToken by ${byAdmin}`,
  ]);
  expect(lines[1]).toMatchObject({ principal: "cal", role: "ROLE_SERVICE", keyId: issued.token?.keyId });
  expect(lines[2]).toMatchObject({ agentId, status: "AGENT_STATUS_BUSY", credential: `token:${token.keyId}` });
  const everything = logged.join("\n");
  expect(everything.length).toBeGreaterThan(1_000);
  for (const each of shown) {
    for (const part of [each, ...each.split(/[_.]/).slice(2)]) {
      if (part.length > 5) expect(everything.includes(part), "a secret in the log").toBe(false);
    }
  }
});
