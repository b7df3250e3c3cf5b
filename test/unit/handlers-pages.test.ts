import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentService, ListAgentTransitionsRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { writePageToken } from "../../src/rpc/convert/page-token.ts";
import { createFakeBackend } from "../support/fake-backend.ts";
import { createInMemoryClients, refusalOf } from "../support/in-memory-clients.ts";

function start(count: number) {
  const backend = createFakeBackend();
  for (let index = 0; index < count; index++) backend.put(`agent-${index}`);
  return { backend, ...createInMemoryClients(backend) };
}

const INVALID = { code: "InvalidArgument", reason: "INVALID_PAGE_TOKEN", fields: ["page_token"] };

describe("page_size", () => {
  it("is 50 by default, 1,000 at most, and never negative", async () => {
    const { agents, users } = start(1_100);
    const size = async (pageSize: number) => (await agents.listAgents({ pageSize })).agents.length;
    expect(await size(0)).toBe(50);
    expect(await size(7)).toBe(7);
    expect(await size(1_000)).toBe(1_000);
    expect(await size(2_147_483_647)).toBe(1_000);
    expect(await refusalOf(agents.listAgents({ pageSize: -1 }))).toMatchObject({ fields: ["page_size"] });
    expect(await refusalOf(users.listUsers({ pageSize: -1 }))).toMatchObject({ fields: ["page_size"] });
  });
});

describe("pages", () => {
  it("of agents are complete and carry the first page's revision, whatever changes meanwhile", async () => {
    const { agents, backend } = start(10);
    const seen: string[] = [];
    let pageToken = "";
    do {
      const page = await agents.listAgents({ pageSize: 4, pageToken });
      expect(page.revision).toBe(10n);
      seen.push(...page.agents.map(({ agentId }) => agentId));
      pageToken = page.nextPageToken;
      backend.put("agent-0", { status: "busy" });
    } while (pageToken !== "");
    expect(seen).toEqual(Array.from({ length: 10 }, (_, index) => `agent-${index}`));
  });

  it("of transitions end at the end as of the first page, in both directions", async () => {
    for (const newestFirst of [false, true]) {
      const { agents, backend } = start(10);
      const seen: bigint[] = [];
      let pageToken = "";
      do {
        const page = await agents.listAgentTransitions({ pageSize: 4, pageToken, newestFirst });
        seen.push(...page.transitions.map(({ revision }) => revision));
        pageToken = page.nextPageToken;
        backend.put("agent-0");
      } while (pageToken !== "");
      const expected = Array.from({ length: 10 }, (_, index) => BigInt(index) + 1n);
      expect(seen).toEqual(newestFirst ? expected.reverse() : expected);
    }
  });

  it("of users follow each other", async () => {
    const { users } = start(0);
    for (const username of ["a", "b", "c"]) await users.createUser({ username });
    const first = await users.listUsers({ pageSize: 2 });
    const second = await users.listUsers({ pageSize: 2, pageToken: first.nextPageToken });
    expect([...first.users, ...second.users].map(({ username }) => username)).toEqual(["a", "b", "c"]);
    expect(second.nextPageToken).toBe("");
  });
});

describe("a page token", () => {
  it("works with another page_size", async () => {
    const { agents } = start(10);
    const { nextPageToken: pageToken } = await agents.listAgents({ pageSize: 3 });
    expect((await agents.listAgents({ pageSize: 5, pageToken })).agents[0]?.agentId).toBe("agent-3");
  });

  it("belongs to its request", async () => {
    const { agents, users } = start(10);
    const filter = { statuses: [AgentStatus.IDLE] };
    const list = (await agents.listAgents({ pageSize: 3, filter })).nextPageToken;
    const log = (await agents.listAgentTransitions({ pageSize: 3 })).nextPageToken;
    expect((await agents.listAgents({ filter, pageToken: list })).agents).toHaveLength(7);
    for (const call of [
      agents.listAgents({ pageToken: list }),
      agents.listAgents({ filter: { statuses: [AgentStatus.BUSY] }, pageToken: list }),
      agents.listAgents({ pageToken: log }),
      agents.listAgentTransitions({ pageToken: list }),
      agents.listAgentTransitions({ pageToken: log, newestFirst: true }),
      agents.listAgentTransitions({ pageToken: log, afterRevision: 1n }),
      agents.listAgentTransitions({ pageToken: log, agentId: "agent-1" }),
      users.listUsers({ pageToken: list }),
    ]) {
      expect(await refusalOf(call)).toMatchObject(INVALID);
    }
  });

  it("is rejected when it is made of numbers that no list continues from", async () => {
    const { agents } = start(10);
    const request = create(ListAgentTransitionsRequestSchema, { newestFirst: true });
    const least = -(2n ** 63n);
    for (const position of [
      { after: least, asOf: 5n },
      { after: 5n, asOf: least },
      { after: -1n, asOf: -1n },
    ]) {
      const pageToken = writePageToken(AgentService.method.listAgentTransitions, request, position);
      expect(await refusalOf(agents.listAgentTransitions({ newestFirst: true, pageToken }))).toMatchObject(INVALID);
    }
  });

  it("is rejected when a single character of it was changed, added or lost", async () => {
    const { agents } = start(10);
    const { nextPageToken: token } = await agents.listAgents({ pageSize: 3 });
    expect(token).toMatch(/^[A-Za-z0-9_-]+$/);
    const changed = Array.from(token, (char, index) => {
      const other = char === "A" ? "B" : "A";
      return `${token.slice(0, index)}${other}${token.slice(index + 1)}`;
    });
    const others = [
      `${token}A`,
      token.slice(1),
      token.slice(0, -1),
      `${token}=`,
      ` ${token}`,
      "x",
      "!",
      "0".repeat(5_000),
    ];
    for (const pageToken of [...changed, ...others]) {
      expect(await refusalOf(agents.listAgents({ pageToken }))).toMatchObject(INVALID);
    }
  });
});
