import { Code } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { type ApiToken, Role } from "../../gen/harborforge/agents/v1/token_pb.ts";
import {
  expectAhead,
  expectInvalid,
  expectInvalidToken,
  expectRefusal,
  expectReusedRequestId,
  present,
  tampered,
} from "../support/contract-steps.ts";
import { GRPC_JS, openClients, TESTED_PROTOCOLS, useClients } from "../support/protocol-clients.ts";
import { unique, useService } from "../support/service.ts";

// Credentials are not required here: another test checks the use of tokens.
const service = useService();

const DAY_MS = 24 * 3_600_000;

describe.concurrent.each(TESTED_PROTOCOLS)("$name", (protocol) => {
  const { tokens } = useClients(protocol, service);
  const viewer = (principal = unique("viewer")) => ({ principal, role: Role.VIEWER });
  const issue = async (principal?: string): Promise<ApiToken> =>
    present((await tokens.issueToken(viewer(principal))).token);

  describe("IssueToken", () => {
    test("issues a token for 90 days, whose secret has a recognizable prefix", async () => {
      const since = Date.now();
      const principal = unique("viewer");
      const { token, secret } = await tokens.issueToken(viewer(principal));
      expect(secret).toMatch(/^hf_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}$/);
      expect(secret.startsWith(`hf_${token?.keyId}_`)).toBe(true);
      expect(token).toMatchObject({ principal, role: Role.VIEWER, agentIds: [], clawIdentifier: "", revokedBy: "" });
      expect(token?.createdBy).toBe("service:anonymous");
      expect(token?.revokedAt).toBeUndefined();
      expectAhead(token?.createdAt, 0, since);
      expectAhead(token?.expiresAt, 90 * DAY_MS, since);
    });

    test("issues tokens of agents, by name or by claw, for the requested time", async () => {
      const since = Date.now();
      const lifetime = { seconds: 60n };
      const named = await tokens.issueToken({
        principal: unique("a"),
        role: Role.AGENT,
        agentIds: ["b", "a"],
        lifetime,
      });
      expect(named.token).toMatchObject({ role: Role.AGENT, agentIds: ["b", "a"], clawIdentifier: "" });
      expectAhead(named.token?.expiresAt, 60_000, since);
      const claw = await tokens.issueToken({ principal: unique("c"), role: Role.AGENT, clawIdentifier: "claw-1" });
      expect(claw.token).toMatchObject({ role: Role.AGENT, agentIds: [], clawIdentifier: "claw-1" });
    });

    test("allows two live tokens of a principal, not three", async () => {
      const principal = unique("rotating");
      const [first] = [await issue(principal), await issue(principal)];
      const third = tokens.issueToken(viewer(principal));
      const metadata = { limit: "maxLiveTokens", principal };
      await expectRefusal(third, Code.ResourceExhausted, "LIMIT_EXCEEDED", { metadata });
      await tokens.revokeToken({ keyId: first.keyId });
      await issue(principal);
    });

    test("names invalid fields", async () => {
      const principal = unique("p");
      await expectInvalid(tokens.issueToken({ role: Role.VIEWER }), "principal");
      await expectInvalid(tokens.issueToken({ principal: "a\nb", role: Role.VIEWER }), "principal");
      await expectInvalid(tokens.issueToken({ principal }), "role");
      await expectInvalid(tokens.issueToken({ principal, role: Role.AGENT }), "agent_ids");
      const both = { agentIds: ["a"], clawIdentifier: "c" };
      await expectInvalid(tokens.issueToken({ principal, role: Role.AGENT, ...both }), "claw_identifier");
      await expectInvalid(tokens.issueToken({ principal, role: Role.ADMIN, ...both }), "agent_ids", "claw_identifier");
      await expectInvalid(tokens.issueToken({ principal, role: Role.AGENT, agentIds: ["a", ""] }), "agent_ids[1]");
      const tooMany = Array.from({ length: 1_001 }, (_, n) => `a${n}`);
      await expectInvalid(tokens.issueToken({ principal, role: Role.AGENT, agentIds: tooMany }), "agent_ids");
      for (const lifetime of [{ nanos: 999_999_999 }, { seconds: -1n }, { seconds: 31_622_401n }]) {
        await expectInvalid(tokens.issueToken({ ...viewer(principal), lifetime }), "lifetime");
      }
      await expectInvalid(tokens.issueToken({ ...viewer(principal), requestId: "x".repeat(65) }), "request_id");
    });

    test("returns the first token without its secret to a repeated request", async () => {
      const request = { ...viewer(), requestId: unique("request") };
      const first = await tokens.issueToken(request);
      expect(first.secret).not.toBe("");
      const again = await tokens.issueToken(request);
      expect(again.token).toEqual(first.token);
      expect(again.secret).toBe("");
      await tokens.revokeToken({ keyId: present(first.token).keyId });
      expect((await tokens.issueToken(request)).token?.revokedAt).toBeDefined();
      await expectReusedRequestId(tokens.issueToken({ ...request, principal: unique("other") }), request.requestId);
      const revocation = tokens.revokeToken({ keyId: present(first.token).keyId, requestId: request.requestId });
      await expectReusedRequestId(revocation, request.requestId);
    });
  });

  describe("ListTokens", () => {
    test("lists all tokens in pages, in the order in which they were issued, without secrets", async () => {
      const principal = unique("listed");
      const issued = [await issue(principal), await issue(principal)];
      await tokens.revokeToken({ keyId: present(issued[0]).keyId });
      issued.push(await issue(principal));
      const first = await tokens.listTokens({ principal, pageSize: 2 });
      const second = await tokens.listTokens({ principal, pageSize: 2, pageToken: first.nextPageToken });
      const keys = [...first.tokens, ...second.tokens].map(({ keyId }) => keyId);
      expect(keys).toEqual(issued.map(({ keyId }) => keyId));
      expect(first.tokens[0]?.revokedAt).toBeDefined();
      expect(first.tokens[1]).toEqual(issued[1]);
      expect(second.nextPageToken).toBe("");
      const everybody = await tokens.listTokens({ pageSize: 1_000 });
      expect(everybody.tokens.map(({ keyId }) => keyId)).toEqual(expect.arrayContaining(keys));
      await expectInvalidToken(tokens.listTokens({ principal, pageToken: tampered(first.nextPageToken) }));
      await expectInvalidToken(tokens.listTokens({ pageToken: first.nextPageToken }));
      await expectInvalid(tokens.listTokens({ pageSize: -1 }), "page_size");
    });
  });

  describe("RevokeToken", () => {
    test("revokes once, and returns the same when it is repeated", async () => {
      const since = Date.now();
      const { keyId } = await issue();
      const requestId = unique("request");
      const first = await tokens.revokeToken({ keyId, requestId });
      expect(first.token).toMatchObject({ keyId, revokedBy: "service:anonymous" });
      expectAhead(first.token?.revokedAt, 0, since);
      expect(await tokens.revokeToken({ keyId, requestId })).toEqual(first);
      expect(await tokens.revokeToken({ keyId })).toEqual(first);
    });

    test("rejects an unknown token", async () => {
      const keyId = unique("k");
      const call = tokens.revokeToken({ keyId });
      await expectRefusal(call, Code.NotFound, "TOKEN_NOT_FOUND", { metadata: { keyId } });
      await expectInvalid(tokens.revokeToken({}), "key_id");
    });
  });
});

test("JSON outside the contract is rejected, as everywhere", async () => {
  const ask = (body: object) =>
    fetch(`http://${service().addresses.http}/harborforge.agents.v1.TokenService/IssueToken`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  for (const body of [
    { principal: "x", role: "admin" },
    { principal: "x", role: 9 },
    { principal: "x", role: "ROLE_ADMIN", agentId: "a" },
  ]) {
    const response = await ask(body);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ code: "invalid_argument" });
  }
});

test("the database stores a hash of a token, and not its secret", async () => {
  using clients = openClients(GRPC_JS, service().addresses);
  const { secret, token } = await clients.tokens.issueToken({ principal: unique("kept"), role: Role.ADMIN });
  const rows = await service().query<{ row: string }>(
    "SELECT t::text AS row FROM api_tokens t WHERE key_id = $1 UNION ALL SELECT r::text FROM request_ids r",
    token?.keyId,
  );
  const [, , middle = ""] = secret.split("_");
  expect(rows[0]?.row).toContain(token?.keyId);
  for (const { row } of rows) expect(row.includes(middle)).toBe(false);
});
