import { Code } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { Role } from "../../gen/harborforge/agents/v1/token_pb.ts";
import { CREDENTIALS, openMint } from "../support/access.ts";
import { expectReusedRequestId, newAgent, newUser, present } from "../support/contract-steps.ts";
import { GRPC_JS, openClients, PROTOCOLS } from "../support/protocol-clients.ts";
import { failure } from "../support/rpc-clients.ts";
import { unique, useService } from "../support/service.ts";

const { BUSY } = AgentStatus;
const CONNECT = present(PROTOCOLS.find(({ name }) => name === "Connect JSON over HTTP/2"));

const service = useService({ access: CREDENTIALS });

/** Clients of principals of one test, each with as many tokens as requested. */
async function openPrincipals(undo: AsyncDisposableStack) {
  const mint = undo.use(openMint(service().databaseUrl));
  const clients = async (protocol: typeof GRPC_JS, principal: string, role: "service" | "admin") => {
    const token = { principal, grant: { role }, lifetimeMs: 3_600_000 } as const;
    const { secret } = await mint.tokens.issue(token, { actor: "user:test", request: undefined });
    return undo.use(openClients(protocol, service().addresses, present(secret)));
  };
  return { clients, admin: await clients(GRPC_JS, unique("admin"), "admin") };
}

describe.each([GRPC_JS, CONNECT])("at $name", (protocol) => {
  test("two principals use one request_id for two requests", async () => {
    await using undo = new AsyncDisposableStack();
    const { clients, admin } = await openPrincipals(undo);
    const one = await clients(protocol, unique("calendar"), "service");
    const other = await clients(protocol, unique("calendar"), "service");
    const { agentId, agent } = await newAgent(admin);
    const claim = { agentId, status: BUSY, expectedRevision: agent.revision, requestId: "job-1" };
    const claimed = await one.agents.updateAgentStatus(claim);
    expect(await failure(other.agents.updateAgentStatus(claim))).toMatchObject({
      code: Code.Aborted,
      reason: "REVISION_MISMATCH",
    });
    // A failed request is not recorded, and each principal has its own response.
    const later = { ...claim, expectedRevision: present(claimed.agent).revision, hold: { seconds: 1n } };
    const second = await other.agents.updateAgentStatus(later);
    expect(await one.agents.updateAgentStatus(claim)).toEqual(claimed);
    expect(await other.agents.updateAgentStatus(later)).toEqual(second);
    await expectReusedRequestId(other.agents.updateAgentStatus(claim), "job-1");
  });

  test("a principal is identified by its name, with any token and listener", async () => {
    await using undo = new AsyncDisposableStack();
    const { clients, admin } = await openPrincipals(undo);
    const name = unique("scheduler");
    const first = await clients(GRPC_JS, name, "service");
    const rotated = await clients(protocol, name, "service");
    const { agentId, agent } = await newAgent(admin);
    const claim = { agentId, status: BUSY, expectedRevision: agent.revision, requestId: unique("claim") };
    const claimed = await first.agents.updateAgentStatus(claim);
    expect(await rotated.agents.updateAgentStatus(claim)).toEqual(claimed);
  });

  test("responses to changes of users and tokens belong to their principal alone", async () => {
    await using undo = new AsyncDisposableStack();
    const { clients } = await openPrincipals(undo);
    const one = await clients(protocol, unique("admin"), "admin");
    const other = await clients(protocol, unique("admin"), "admin");
    const user = await newUser(one);
    const requestId = unique("shared");
    const rename = { id: user.id, displayName: "by one", requestId };
    await one.users.updateUser(rename);
    const issue = { principal: unique("robot"), role: Role.VIEWER, requestId };
    const issued = await other.tokens.issueToken(issue);
    expect(issued.secret).not.toBe("");
    await other.users.updateUser({ id: user.id, displayName: "by other", requestId: unique("request") });
    expect((await one.users.updateUser(rename)).user?.displayName).toBe("by one");
    expect((await other.tokens.issueToken(issue)).token?.keyId).toBe(issued.token?.keyId);
    await expectReusedRequestId(one.tokens.issueToken(issue), requestId);
  });
});
