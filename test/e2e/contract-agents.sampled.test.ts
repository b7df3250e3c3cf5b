import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  aheadMs,
  type Bound,
  expectAhead,
  expectInvalid,
  expectInvalidToken,
  expectRefusal,
  expectReusedRequestId,
  getAgent,
  newAgent,
  newUser,
  present,
  rateLimit,
  setStatus,
  tampered,
} from "../support/contract-steps.ts";
import { TESTED_PROTOCOLS, useClients } from "../support/protocol-clients.ts";
import { FIRST_LEASE_MS, INTERVAL_MS, unique, useService } from "../support/service.ts";

const service = useService();

const TOO_MANY = Array.from({ length: 1_001 }, (_, index) => `agent-${index}`);
/** A value that a newer client could send. */
const UNKNOWN_STATUS = 99 as AgentStatus;

describe.concurrent.each(TESTED_PROTOCOLS)("$name", (protocol) => {
  const clients = useClients(protocol, service);
  const { users, agents } = clients;
  const byAgentId = (value: string) => agents.getAgent({ key: { case: "agentId", value } });
  const expectNoAgent = (agentId: string) =>
    expectRefusal(byAgentId(agentId), Code.NotFound, "AGENT_NOT_FOUND", { metadata: { agentId } });

  describe("CreateAgent", () => {
    test("binds an agent to a user", async () => {
      const since = Date.now();
      const user = await newUser(clients);
      const [agentId, clawIdentifier] = [unique("agent"), unique("claw")];
      const agent = present((await agents.createAgent({ userId: user.id, agentId, clawIdentifier })).agent);
      expect(agent).toMatchObject({ userId: user.id, agentId, clawIdentifier, status: AgentStatus.IDLE });
      expect(agent.revision).toBeGreaterThan(0n);
      expectAhead(agent.leaseExpiresAt, FIRST_LEASE_MS, since);
      expect(await getAgent(clients, agentId)).toEqual(agent);
      const bound = await users.getUser({ key: { case: "id", value: user.id } });
      expect(bound.user).toEqual({ ...user, agentId });
    });

    test("rejects an unknown user, a taken agent_id and a second agent", async () => {
      const { user, agentId } = await newAgent(clients);
      const free = await newUser(clients);
      const userId = 9_007_199_254_740_993n;
      const names = { agentId: unique("agent"), clawIdentifier: "claw" };
      await expectRefusal(agents.createAgent({ userId, ...names }), Code.NotFound, "USER_NOT_FOUND", {
        metadata: { userId: "9007199254740993" },
      });
      const taken = agents.createAgent({ userId: free.id, agentId, clawIdentifier: "claw" });
      await expectRefusal(taken, Code.AlreadyExists, "AGENT_ID_TAKEN", { metadata: { agentId } });
      await expectRefusal(agents.createAgent({ userId: user.id, ...names }), Code.AlreadyExists, "USER_HAS_AGENT", {
        metadata: { userId: `${user.id}` },
      });
      await expectNoAgent(names.agentId);
    });

    test("names every invalid field", async () => {
      await expectInvalid(agents.createAgent({}), "user_id", "agent_id", "claw_identifier");
      const call = agents.createAgent({
        userId: -1n,
        agentId: "🚢".repeat(129),
        clawIdentifier: "\u0085",
        requestId: "r".repeat(65),
      });
      await expectInvalid(call, "user_id", "agent_id", "claw_identifier", "request_id");
    });

    test("returns the first response to a repeated request, whatever happened since", async () => {
      const user = await newUser(clients);
      const requestId = unique("request");
      const request = { userId: user.id, agentId: unique("agent"), clawIdentifier: "claw", requestId };
      const first = await agents.createAgent(request);
      await setStatus(clients, request.agentId, AgentStatus.BUSY);
      expect(await agents.createAgent(request)).toEqual(first);
      expect((await getAgent(clients, request.agentId)).status).toBe(AgentStatus.BUSY);
      await expectReusedRequestId(agents.createAgent({ ...request, clawIdentifier: "other" }), requestId);
      await expectReusedRequestId(agents.deleteAgent({ agentId: request.agentId, requestId }), requestId);
    });

    test("creates another agent with the agent_id of a deleted one", async () => {
      const { agent, agentId, user } = await newAgent(clients);
      await agents.deleteAgent({ agentId });
      const again = await agents.createAgent({ userId: user.id, agentId, clawIdentifier: "elsewhere" });
      expect(again.agent?.id).toBeGreaterThan(agent.id);
      expect(again.agent?.revision).toBeGreaterThan(agent.revision);
    });
  });

  describe("GetAgent", () => {
    test("finds an agent by agent_id and by user", async () => {
      const { agent, agentId, user } = await newAgent(clients);
      expect((await byAgentId(agentId)).agent).toEqual(agent);
      expect((await agents.getAgent({ key: { case: "userId", value: user.id } })).agent).toEqual(agent);
    });

    test("names the missing key, and rejects invalid ones", async () => {
      const user = await newUser(clients);
      await expectNoAgent(unique("agent"));
      const ofUser = agents.getAgent({ key: { case: "userId", value: user.id } });
      await expectRefusal(ofUser, Code.NotFound, "AGENT_NOT_FOUND", { metadata: { userId: `${user.id}` } });
      await expectInvalid(agents.getAgent({}), "key");
      await expectInvalid(byAgentId(""), "agent_id");
      await expectInvalid(agents.getAgent({ key: { case: "userId", value: 0n } }), "user_id");
    });
  });

  describe("BatchGetAgents", () => {
    test("returns agents in the requested order, also one that is requested twice", async () => {
      const [one, two, three] = [await newAgent(clients), await newAgent(clients), await newAgent(clients)];
      const asked = [three, one, two, one];
      const { agents: found } = await agents.batchGetAgents({ agentIds: asked.map(({ agentId }) => agentId) });
      expect(found).toEqual(asked.map(({ agent }) => agent));
    });

    test("returns an empty list for an empty request", async () => {
      expect((await agents.batchGetAgents({})).agents).toEqual([]);
    });

    test("names missing agents", async () => {
      const { agentId } = await newAgent(clients);
      const [one, two] = [unique("missing"), unique("missing")];
      const call = agents.batchGetAgents({ agentIds: [two, agentId, one, two] });
      const { message } = await expectRefusal(call, Code.NotFound, "AGENT_NOT_FOUND", {
        metadata: { agentId: two, agentIds: JSON.stringify([two, one]), missing: "2" },
      });
      expect(message).toContain(one);
      expect(message).toContain(two);
    });

    test("rejects invalid agent_ids, and more than 1,000", async () => {
      await expectInvalid(agents.batchGetAgents({ agentIds: ["a", "", "b\n"] }), "agent_ids[1]", "agent_ids[2]");
      await expectInvalid(agents.batchGetAgents({ agentIds: TOO_MANY }), "agent_ids");
      const missing = await expectRefusal(
        agents.batchGetAgents({ agentIds: TOO_MANY.slice(1) }),
        Code.NotFound,
        "AGENT_NOT_FOUND",
        { metadata: expect.objectContaining({ missing: "1000" }) },
      );
      // All of them would be more than headers carry.
      expect(missing.message.length).toBeLessThan(2_000);
    });
  });

  describe("ListAgents", () => {
    test("filters: OR within a field, AND across fields", async () => {
      const [here, there] = [unique("claw"), unique("claw")];
      const idle = await newAgent(clients, here);
      const busy = await newAgent(clients, here);
      const onCall = await newAgent(clients, there);
      await setStatus(clients, busy.agentId, AgentStatus.BUSY);
      await setStatus(clients, onCall.agentId, AgentStatus.ON_CALL);
      const listed = async (filter: Parameters<typeof agents.listAgents>[0]["filter"] & object) =>
        (await agents.listAgents({ filter })).agents.map(({ agentId }) => agentId);
      expect(await listed({ clawIdentifiers: [here] })).toEqual([idle.agentId, busy.agentId]);
      expect(await listed({ clawIdentifiers: [there, here] })).toEqual([idle.agentId, busy.agentId, onCall.agentId]);
      expect(await listed({ clawIdentifiers: [here], statuses: [AgentStatus.BUSY] })).toEqual([busy.agentId]);
      expect(await listed({ agentIds: [onCall.agentId, idle.agentId, "nobody"] })).toEqual([
        idle.agentId,
        onCall.agentId,
      ]);
      expect(await listed({ userIds: [busy.user.id, onCall.user.id] })).toEqual([busy.agentId, onCall.agentId]);
      const statuses = [AgentStatus.BUSY, AgentStatus.ON_CALL];
      expect(await listed({ statuses, clawIdentifiers: [here, there], userIds: [onCall.user.id] })).toEqual([
        onCall.agentId,
      ]);
      expect(await listed({ agentIds: [idle.agentId], statuses })).toEqual([]);
    });

    test("returns the same agents as GetAgent", async () => {
      const { agentId } = await newAgent(clients);
      await agents.updateAgentStatus({ agentId, status: AgentStatus.EXHAUSTED, exhaustion: rateLimit(60n) });
      await agents.sendHeartbeat({ beats: [{ agentId }] });
      const { agents: listed } = await agents.listAgents({ filter: { agentIds: [agentId] } });
      expect(listed).toEqual([await getAgent(clients, agentId)]);
      expect(listed[0]?.lastHeartbeat).toBeDefined();
    });

    test("lists every agent with an empty or absent filter", async () => {
      const { agentId } = await newAgent(clients);
      for (const filter of [undefined, {}]) {
        const seen: string[] = [];
        let pageToken = "";
        do {
          const page = await agents.listAgents({ ...(filter && { filter }), pageSize: 5_000, pageToken });
          seen.push(...page.agents.map((agent) => agent.agentId));
          pageToken = page.nextPageToken;
        } while (pageToken !== "");
        expect(seen).toContain(agentId);
      }
    });

    test("pages by id, and all pages carry the revision of the first", async () => {
      const claw = unique("claw");
      const bound: Bound[] = [];
      for (let count = 0; count < 5; count += 1) bound.push(await newAgent(clients, claw));
      const filter = { clawIdentifiers: [claw] };
      const first = await agents.listAgents({ filter, pageSize: 2 });
      await setStatus(clients, present(bound[4]).agentId, AgentStatus.BUSY);
      const second = await agents.listAgents({ filter, pageSize: 1, pageToken: first.nextPageToken });
      const third = await agents.listAgents({ filter, pageToken: second.nextPageToken });
      expect([first, second, third].map((page) => page.agents.map(({ id }) => id))).toEqual([
        [bound[0]?.agent.id, bound[1]?.agent.id],
        [bound[2]?.agent.id],
        [bound[3]?.agent.id, bound[4]?.agent.id],
      ]);
      expect(third.nextPageToken).toBe("");
      expect(first.revision).toBeGreaterThanOrEqual(present(bound[4]).agent.revision);
      expect([second.revision, third.revision]).toEqual([first.revision, first.revision]);
      // The change made meanwhile has a higher revision: a watch from there reports it.
      expect(third.agents[1]?.revision).toBeGreaterThan(first.revision);
    });

    test("ends with a page that is exactly full", async () => {
      const claw = unique("claw");
      for (let count = 0; count < 2; count += 1) await newAgent(clients, claw);
      const page = await agents.listAgents({ filter: { clawIdentifiers: [claw] }, pageSize: 2 });
      expect(page.agents).toHaveLength(2);
      expect(page.nextPageToken).toBe("");
    });

    test("rejects tokens that belong to another request or are damaged", async () => {
      const claw = unique("claw");
      for (let count = 0; count < 2; count += 1) await newAgent(clients, claw);
      const filter = { clawIdentifiers: [claw] };
      const { nextPageToken: pageToken } = await agents.listAgents({ filter, pageSize: 1 });
      await expectInvalidToken(agents.listAgents({ pageToken }));
      await expectInvalidToken(agents.listAgents({ filter: { ...filter, statuses: [AgentStatus.IDLE] }, pageToken }));
      await expectInvalidToken(agents.listAgents({ filter, pageToken: tampered(pageToken) }));
      await expectInvalidToken(agents.listAgents({ filter, pageToken: pageToken.slice(1) }));
      await expectInvalidToken(agents.listAgents({ filter, pageToken: "\u0000" }));
      await expectInvalidToken(agents.listAgentTransitions({ pageToken }));
      await expectInvalidToken(users.listUsers({ pageToken }));
      expect((await agents.listAgents({ filter, pageToken })).agents).toHaveLength(1);
    });

    test("rejects invalid filter values, and a negative page size", async () => {
      const statuses = [AgentStatus.IDLE, AgentStatus.UNSPECIFIED];
      await expectInvalid(agents.listAgents({ filter: { statuses }, pageSize: -1 }), "filter.statuses[1]", "page_size");
      const filter = { agentIds: [""], userIds: [1n, 0n], clawIdentifiers: ["a", "b", "\t"] };
      await expectInvalid(
        agents.listAgents({ filter }),
        "filter.agent_ids[0]",
        "filter.user_ids[1]",
        "filter.claw_identifiers[2]",
      );
      await expectInvalid(agents.listAgents({ filter: { agentIds: TOO_MANY } }), "filter.agent_ids");
      await expectInvalid(agents.listAgents({ filter: { userIds: TOO_MANY.map(() => 1n) } }), "filter.user_ids");
      await expectInvalid(agents.listAgents({ filter: { clawIdentifiers: TOO_MANY } }), "filter.claw_identifiers");
      const manyStatuses = TOO_MANY.map(() => AgentStatus.IDLE);
      await expectInvalid(agents.listAgents({ filter: { statuses: manyStatuses } }), "filter.statuses");
    });

    test("rejects a status outside the contract", async () => {
      const filter = { statuses: [AgentStatus.BUSY, UNKNOWN_STATUS] };
      await expectInvalid(agents.listAgents({ filter }), "filter.statuses[1]");
      await expectInvalid(agents.getFleet({ filter }), "filter.statuses[1]");
    });
  });

  describe("GetFleet", () => {
    test("counts by status and by claw, and returns the pace", async () => {
      const [here, there] = [`a-${unique("claw")}`, `b-${unique("claw")}`];
      const [busy, , idle] = [
        await newAgent(clients, here),
        await newAgent(clients, here),
        await newAgent(clients, there),
      ];
      const { revision } = await setStatus(clients, busy.agentId, AgentStatus.BUSY);
      const fleet = await agents.getFleet({ filter: { clawIdentifiers: [there, here] } });
      expect(fleet.statuses).toMatchObject([
        { status: AgentStatus.IDLE, count: 2n },
        { status: AgentStatus.BUSY, count: 1n },
      ]);
      expect(fleet.claws).toMatchObject([
        {
          clawIdentifier: here,
          statuses: [
            { status: AgentStatus.IDLE, count: 1n },
            { status: AgentStatus.BUSY, count: 1n },
          ],
        },
        { clawIdentifier: there, statuses: [{ status: AgentStatus.IDLE, count: 1n }] },
      ]);
      expect(fleet.brake).toMatchObject({ engaged: false, heldBack: 0n });
      expect(fleet.brake?.engagedAt).toBeUndefined();
      const interval = durationMs(present(fleet.nextHeartbeatIn));
      expect(interval).toBeLessThanOrEqual(INTERVAL_MS);
      expect(interval).toBeGreaterThan(0.8 * INTERVAL_MS);
      expect(durationMs(present(fleet.leaseTtl))).toBe(3 * INTERVAL_MS);
      expect(fleet.revision).toBeGreaterThanOrEqual(revision);
      const onlyIdle = await agents.getFleet({ filter: { agentIds: [idle.agentId, busy.agentId], statuses: [1] } });
      expect(onlyIdle.claws.map(({ clawIdentifier }) => clawIdentifier)).toEqual([there]);
    });

    test("counts nothing when no agent passes, and every agent without a filter", async () => {
      await newAgent(clients);
      const none = await agents.getFleet({ filter: { clawIdentifiers: [unique("claw")] } });
      expect([none.statuses, none.claws]).toEqual([[], []]);
      expect((await agents.getFleet({})).statuses.length).toBeGreaterThan(0);
      await expectInvalid(agents.getFleet({ filter: { statuses: [AgentStatus.UNSPECIFIED] } }), "filter.statuses[0]");
    });
  });

  describe("MoveAgent", () => {
    test("moves an agent: status and exhaustion stay, and a new first lease is granted", async () => {
      const since = Date.now();
      const { agentId } = await newAgent(clients);
      await agents.updateAgentStatus({ agentId, status: AgentStatus.EXHAUSTED, exhaustion: rateLimit(3_600n) });
      await agents.sendHeartbeat({ beats: [{ agentId }] });
      const before = await getAgent(clients, agentId);
      expect(aheadMs(before.leaseExpiresAt)).toBeLessThan(3 * INTERVAL_MS);
      const clawIdentifier = unique("claw");
      const agent = present((await agents.moveAgent({ agentId, clawIdentifier })).agent);
      const { revision, leaseExpiresAt } = agent;
      expect(agent).toEqual({ ...before, clawIdentifier, revision, leaseExpiresAt });
      expect(revision).toBeGreaterThan(before.revision);
      expectAhead(leaseExpiresAt, FIRST_LEASE_MS, since);
      expect(await getAgent(clients, agentId)).toEqual(agent);
    });

    test("leaves an offline agent offline", async () => {
      const { agentId } = await newAgent(clients);
      await setStatus(clients, agentId, AgentStatus.OFFLINE);
      const { agent } = await agents.moveAgent({ agentId, clawIdentifier: unique("claw") });
      expect(agent?.status).toBe(AgentStatus.OFFLINE);
      expect(agent?.leaseExpiresAt).toBeUndefined();
    });

    test("changes nothing when the agent is at that claw already", async () => {
      const { agent, agentId, claw } = await newAgent(clients);
      expect((await agents.moveAgent({ agentId, clawIdentifier: claw })).agent).toEqual(agent);
    });

    test("rejects an unknown agent, and invalid fields", async () => {
      const agentId = unique("agent");
      const unknown = agents.moveAgent({ agentId, clawIdentifier: "claw" });
      await expectRefusal(unknown, Code.NotFound, "AGENT_NOT_FOUND", { metadata: { agentId } });
      await expectInvalid(agents.moveAgent({}), "agent_id", "claw_identifier");
    });

    test("returns the first response to a repeated request, whatever happened since", async () => {
      const { agentId, claw } = await newAgent(clients);
      const request = { agentId, clawIdentifier: unique("claw"), requestId: unique("request") };
      const first = await agents.moveAgent(request);
      await agents.moveAgent({ agentId, clawIdentifier: claw });
      expect(await agents.moveAgent(request)).toEqual(first);
      expect((await getAgent(clients, agentId)).clawIdentifier).toBe(claw);
      await expectReusedRequestId(agents.moveAgent({ ...request, clawIdentifier: claw }), request.requestId);
    });
  });

  describe("DeleteAgent", () => {
    test("deletes an agent and returns the revision; the user stays", async () => {
      const { agent, agentId, user } = await newAgent(clients);
      const { revision } = await agents.deleteAgent({ agentId });
      expect(revision).toBeGreaterThan(agent.revision);
      await expectNoAgent(agentId);
      const left = present((await users.getUser({ key: { case: "id", value: user.id } })).user);
      expect(left.username).toBe(user.username);
      expect(left.agentId).toBeUndefined();
      const { transitions } = await agents.listAgentTransitions({ agentId, newestFirst: true });
      expect(transitions[0]?.revision).toBe(revision);
    });

    test("rejects an unknown agent, and invalid fields", async () => {
      const agentId = unique("agent");
      await expectRefusal(agents.deleteAgent({ agentId }), Code.NotFound, "AGENT_NOT_FOUND", { metadata: { agentId } });
      await expectInvalid(agents.deleteAgent({ requestId: "\n" }), "agent_id", "request_id");
    });

    test("returns the same revision to a repeated request, also when another agent has the agent_id by then", async () => {
      const { agentId, user } = await newAgent(clients);
      const requestId = unique("request");
      const first = await agents.deleteAgent({ agentId, requestId });
      expect(await agents.deleteAgent({ agentId, requestId })).toEqual(first);
      await agents.createAgent({ userId: user.id, agentId, clawIdentifier: "claw" });
      expect(await agents.deleteAgent({ agentId, requestId })).toEqual(first);
      expect((await getAgent(clients, agentId)).status).toBe(AgentStatus.IDLE);
      await expectReusedRequestId(agents.deleteAgent({ agentId: `${agentId}-2`, requestId }), requestId);
    });
  });
});
