import { Code } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { AgentStatus, ExhaustReason, TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  expectAhead,
  expectInvalid,
  expectInvalidToken,
  expectRefusal,
  expectReusedRequestId,
  newAgent,
  newUser,
  present,
  tampered,
} from "../support/contract-steps.ts";
import { TESTED_PROTOCOLS, useClients } from "../support/protocol-clients.ts";
import { FIRST_LEASE_MS, unique, useService } from "../support/service.ts";

const service = useService();

describe.concurrent.each(TESTED_PROTOCOLS)("$name", (protocol) => {
  const clients = useClients(protocol, service);
  const { users, agents } = clients;
  const byId = (id: bigint) => users.getUser({ key: { case: "id", value: id } });

  describe("CreateUser", () => {
    test("creates a user without an agent", async () => {
      const since = Date.now();
      const username = unique("user");
      const { user, agent } = await users.createUser({ username });
      expect(user).toMatchObject({ username, displayName: "" });
      expect(user?.id).toBeGreaterThan(0n);
      expect(user?.email).toBeUndefined();
      expect(user?.agentId).toBeUndefined();
      expectAhead(user?.createdAt, 0, since);
      expect(agent).toBeUndefined();
    });

    test("creates a user and its agent together", async () => {
      const since = Date.now();
      const [username, agentId, clawIdentifier] = [unique("user"), unique("agent"), unique("claw")];
      const email = `${username}@example.org`;
      const created = await users.createUser({ username, email, displayName: "Ada 🚢", agentId, clawIdentifier });
      expect(created.user).toMatchObject({ username, email, displayName: "Ada 🚢", agentId });
      const agent = present(created.agent);
      expect(agent).toMatchObject({ agentId, clawIdentifier, status: AgentStatus.IDLE });
      expect(agent.userId).toBe(created.user?.id);
      expect(agent.exhaustReason).toBe(ExhaustReason.UNSPECIFIED);
      expect(agent.lastHeartbeat).toBeUndefined();
      expect(agent.exhaustedAt).toBeUndefined();
      expect(agent.recoveryAt).toBeUndefined();
      expect(agent.suspectSince).toBeUndefined();
      expect(agent.statusChangedAt).toEqual(agent.createdAt);
      expectAhead(agent.leaseExpiresAt, FIRST_LEASE_MS, since);
      expect(await agents.getAgent({ key: { case: "agentId", value: agentId } })).toMatchObject({ agent });
    });

    test("treats an empty agent_id, claw_identifier and email as unset", async () => {
      const { user, agent } = await users.createUser({
        username: unique("user"),
        email: "",
        agentId: "",
        clawIdentifier: "",
      });
      expect(user?.email).toBeUndefined();
      expect(user?.agentId).toBeUndefined();
      expect(agent).toBeUndefined();
    });

    test("rejects an agent without a claw, and a claw without an agent", async () => {
      const username = unique("user");
      await expectInvalid(users.createUser({ username, agentId: "a" }), "claw_identifier");
      await expectInvalid(users.createUser({ username, agentId: "a", clawIdentifier: "" }), "claw_identifier");
      await expectInvalid(users.createUser({ username, clawIdentifier: "c" }), "agent_id");
      await expectInvalid(users.createUser({ username, agentId: "", clawIdentifier: "c" }), "agent_id");
    });

    test("names every invalid field, in the order of the contract", async () => {
      const call = users.createUser({
        username: "",
        email: "nobody",
        displayName: "a\nb",
        agentId: "x".repeat(129),
        clawIdentifier: "bell\u0007",
        requestId: "r".repeat(65),
      });
      await expectInvalid(call, "username", "email", "display_name", "agent_id", "claw_identifier", "request_id");
    });

    test("keeps names of 128 code points byte for byte, and distinguishes case and forms of Unicode", async () => {
      const tail = unique("");
      const name = (text: string) => `${text.repeat(128 - tail.length)}${tail}`;
      const forms = ["🚢", "é", "e", "E", " "].map(name);
      for (const username of [...forms, `e\u0301${tail}`, `é${tail}`]) {
        const { user } = await users.createUser({ username });
        expect(user?.username).toBe(username);
        expect((await users.getUser({ key: { case: "username", value: username } })).user?.id).toBe(user?.id);
      }
      await expectInvalid(users.createUser({ username: name("🚢").concat("!") }), "username");
    });

    test("rejects taken values, and then creates nothing", async () => {
      const { user, agentId, claw } = await newAgent(clients);
      const email = `${unique("e")}@example.org`;
      await users.updateUser({ id: user.id, email });
      const username = unique("user");
      await expectRefusal(users.createUser({ username: user.username }), Code.AlreadyExists, "USERNAME_TAKEN", {
        metadata: { username: user.username },
      });
      await expectRefusal(users.createUser({ username, email }), Code.AlreadyExists, "EMAIL_TAKEN", {
        metadata: { email },
      });
      const taken = users.createUser({ username, agentId, clawIdentifier: claw });
      await expectRefusal(taken, Code.AlreadyExists, "AGENT_ID_TAKEN", { metadata: { agentId } });
      await expectRefusal(
        users.getUser({ key: { case: "username", value: username } }),
        Code.NotFound,
        "USER_NOT_FOUND",
        {
          metadata: { username },
        },
      );
    });

    test.each(["\u2028", "\u2029"])("rejects taken values also with the line separator %j", async (separator) => {
      const username = `${unique("user")}${separator}x`;
      const agentId = `${unique("agent")}${separator}x`;
      await users.createUser({ username, agentId, clawIdentifier: "c" });
      const metadata = { username };
      await expectRefusal(users.createUser({ username }), Code.AlreadyExists, "USERNAME_TAKEN", { metadata });
      const withRequest = users.createUser({ username, requestId: unique("request") });
      await expectRefusal(withRequest, Code.AlreadyExists, "USERNAME_TAKEN", { metadata });
      const taken = users.createUser({ username: unique("user"), agentId, clawIdentifier: "c" });
      await expectRefusal(taken, Code.AlreadyExists, "AGENT_ID_TAKEN", { metadata: { agentId } });
    });

    test("rejects a taken username with an agent, and then creates no agent", async () => {
      const user = await newUser(clients);
      const agentId = unique("agent");
      const call = users.createUser({ username: user.username, agentId, clawIdentifier: "c" });
      await expectRefusal(call, Code.AlreadyExists, "USERNAME_TAKEN", { metadata: { username: user.username } });
      await expectRefusal(
        agents.getAgent({ key: { case: "agentId", value: agentId } }),
        Code.NotFound,
        "AGENT_NOT_FOUND",
        {
          metadata: { agentId },
        },
      );
    });

    test.each([
      "without an agent",
      "with an agent",
    ])("returns the first response to a repeated request, %s", async (kind) => {
      const bound = kind === "with an agent" ? { agentId: unique("agent"), clawIdentifier: unique("claw") } : {};
      const requestId = unique("request");
      const request = { username: unique("user"), displayName: "first", requestId, ...bound };
      const first = await users.createUser(request);
      await users.updateUser({ id: present(first.user).id, displayName: "second" });
      expect(await users.createUser(request)).toEqual(first);
      await expectReusedRequestId(users.createUser({ ...request, displayName: "other" }), requestId);
      await expectReusedRequestId(users.updateUser({ id: present(first.user).id, requestId }), requestId);
    });

    test("records nothing of a rejected request: its request_id may be used with other content", async () => {
      const requestId = unique("request");
      const taken = await newUser(clients);
      await expectRefusal(
        users.createUser({ username: taken.username, requestId }),
        Code.AlreadyExists,
        "USERNAME_TAKEN",
        { metadata: { username: taken.username } },
      );
      const username = unique("user");
      expect((await users.createUser({ username, requestId })).user?.username).toBe(username);
    });
  });

  describe("GetUser", () => {
    test("finds a user by number, by name and by its agent", async () => {
      const { user, agentId } = await newAgent(clients);
      expect((await byId(user.id)).user).toEqual(user);
      expect((await users.getUser({ key: { case: "username", value: user.username } })).user).toEqual(user);
      expect((await users.getUser({ key: { case: "agentId", value: agentId } })).user).toEqual(user);
    });

    test("names the missing key", async () => {
      const name = unique("nobody");
      const notFound = (key: Parameters<typeof users.getUser>[0]["key"], metadata: Record<string, string>) =>
        expectRefusal(users.getUser(key === undefined ? {} : { key }), Code.NotFound, "USER_NOT_FOUND", { metadata });
      await notFound({ case: "username", value: name }, { username: name });
      await notFound({ case: "username", value: name.toUpperCase() }, { username: name.toUpperCase() });
      await notFound({ case: "agentId", value: name }, { agentId: name });
      // Beyond the precision of a JSON number.
      await notFound({ case: "id", value: 9_007_199_254_740_993n }, { userId: "9007199254740993" });
      await notFound({ case: "id", value: 2n ** 63n - 1n }, { userId: "9223372036854775807" });
    });

    test("rejects a request without a key, or with an invalid one", async () => {
      await expectInvalid(users.getUser({}), "key");
      await expectInvalid(byId(0n), "id");
      await expectInvalid(byId(-(2n ** 63n)), "id");
      await expectInvalid(users.getUser({ key: { case: "username", value: "" } }), "username");
      await expectInvalid(users.getUser({ key: { case: "agentId", value: "a\u0000" } }), "agent_id");
    });

    test("carries numbers beyond 2^53", async () => {
      const username = unique("user");
      const [row] = await service().query<{ id: string }>(
        `INSERT INTO users (id, username) OVERRIDING SYSTEM VALUE
         SELECT greatest(max(id), 9007199254740993) + 2, $1 FROM users RETURNING id`,
        username,
      );
      const id = present(row).id;
      const { user } = await byId(BigInt(id));
      expect(user).toMatchObject({ id: BigInt(id), username });
      expect(user?.id).toBeGreaterThan(2n ** 53n);
    });
  });

  describe("ListUsers", () => {
    test("lists all users in pages, ordered by id, also when the page size changes", async () => {
      const own = [await newUser(clients), await newUser(clients), await newUser(clients)];
      const seen: bigint[] = [];
      let pageToken = "";
      let pageSize = 2;
      do {
        const page = await users.listUsers({ pageSize, pageToken });
        expect(page.users.length).toBeLessThanOrEqual(pageSize);
        seen.push(...page.users.map(({ id }) => id));
        pageToken = page.nextPageToken;
        pageSize = 500;
      } while (pageToken !== "");
      expect(seen).toEqual([...new Set(seen)].sort((one, other) => Number(one - other)));
      expect(seen).toEqual(expect.arrayContaining(own.map(({ id }) => id)));
    });

    test("returns the same users as GetUser", async () => {
      const { user } = await newAgent(clients);
      let { users: page, nextPageToken } = await users.listUsers({ pageSize: 1_000 });
      while (nextPageToken !== "") {
        ({ users: page, nextPageToken } = await users.listUsers({ pageSize: 5_000, pageToken: nextPageToken }));
      }
      expect(page.find(({ id }) => id === user.id)).toEqual(user);
    });

    test("rejects a negative page size and tokens of other requests", async () => {
      await newUser(clients);
      await newUser(clients);
      await expectInvalid(users.listUsers({ pageSize: -1 }), "page_size");
      const { nextPageToken } = await users.listUsers({ pageSize: 1 });
      await expectInvalidToken(users.listUsers({ pageToken: tampered(nextPageToken) }));
      await expectInvalidToken(users.listUsers({ pageToken: `${nextPageToken}=` }));
      await expectInvalidToken(users.listUsers({ pageToken: "no token" }));
      await expectInvalidToken(agents.listAgents({ pageToken: nextPageToken }));
    });
  });

  describe("UpdateUser", () => {
    test("changes set fields and keeps the rest", async () => {
      const { user } = await newAgent(clients);
      const email = `${unique("e")}@example.org`;
      expect((await users.updateUser({ id: user.id, email })).user).toEqual({ ...user, email });
      const renamed = await users.updateUser({ id: user.id, displayName: "Grace" });
      expect(renamed.user).toEqual({ ...user, email, displayName: "Grace" });
      expect((await users.updateUser({ id: user.id })).user).toEqual(renamed.user);
      expect((await byId(user.id)).user).toEqual(renamed.user);
    });

    test("removes an address with an empty one, and a display name", async () => {
      const { id } = await newUser(clients);
      await users.updateUser({ id, email: `${unique("e")}@example.org`, displayName: "Grace" });
      const { user } = await users.updateUser({ id, email: "", displayName: "" });
      expect(user?.email).toBeUndefined();
      expect(user?.displayName).toBe("");
    });

    test("rejects another user's address, and accepts the user's own", async () => {
      const [one, other] = [await newUser(clients), await newUser(clients)];
      const email = `${unique("e")}@example.org`;
      await users.updateUser({ id: one.id, email });
      expect((await users.updateUser({ id: one.id, email })).user?.email).toBe(email);
      await expectRefusal(users.updateUser({ id: other.id, email }), Code.AlreadyExists, "EMAIL_TAKEN", {
        metadata: { email },
      });
      await users.updateUser({ id: one.id, email: "" });
      expect((await users.updateUser({ id: other.id, email })).user?.email).toBe(email);
    });

    test("rejects an unknown user, and invalid fields", async () => {
      const metadata = { userId: "4611686018427387905" };
      const call = users.updateUser({ id: 4_611_686_018_427_387_905n, displayName: "x" });
      await expectRefusal(call, Code.NotFound, "USER_NOT_FOUND", { metadata });
      await expectInvalid(
        users.updateUser({ email: "a@b@c", displayName: "x".repeat(257), requestId: "\u0000" }),
        "id",
        "email",
        "display_name",
        "request_id",
      );
    });

    test("returns the first response to a repeated request, whatever happened since", async () => {
      const { id } = await newUser(clients);
      const requestId = unique("request");
      const first = await users.updateUser({ id, displayName: "first", requestId });
      await users.updateUser({ id, displayName: "second" });
      expect(await users.updateUser({ id, displayName: "first", requestId })).toEqual(first);
      expect((await byId(id)).user?.displayName).toBe("second");
      await expectReusedRequestId(users.updateUser({ id, displayName: "other", requestId }), requestId);
      await expectReusedRequestId(users.updateUser({ id, requestId }), requestId);
    });
  });

  describe("DeleteUser", () => {
    test("deletes a user", async () => {
      const { id } = await newUser(clients);
      await users.deleteUser({ id });
      for (const call of [() => byId(id), () => users.deleteUser({ id }), () => users.updateUser({ id })]) {
        await expectRefusal(call(), Code.NotFound, "USER_NOT_FOUND", { metadata: { userId: `${id}` } });
      }
    });

    test("deletes the agent, too, as a transition", async () => {
      const { user, agent, agentId, claw } = await newAgent(clients);
      const requestId = unique("request");
      await users.deleteUser({ id: user.id, requestId });
      await expectRefusal(
        agents.getAgent({ key: { case: "agentId", value: agentId } }),
        Code.NotFound,
        "AGENT_NOT_FOUND",
        {
          metadata: { agentId },
        },
      );
      const { transitions } = await agents.listAgentTransitions({ agentId, newestFirst: true, pageSize: 1 });
      expect(transitions).toMatchObject([
        {
          agentId,
          id: agent.id,
          userId: user.id,
          cause: TransitionCause.DELETED,
          fromStatus: AgentStatus.IDLE,
          toStatus: AgentStatus.UNSPECIFIED,
          fromClawIdentifier: claw,
          toClawIdentifier: "",
          requestId,
        },
      ]);
      // Name and agent_id are free again.
      const again = await users.createUser({ username: user.username, agentId, clawIdentifier: claw });
      expect(again.agent?.id).toBeGreaterThan(agent.id);
    });

    test.each([
      "without an agent",
      "with an agent",
    ])("returns the first response to a repeated request, %s", async (kind) => {
      const { id } = kind === "with an agent" ? (await newAgent(clients)).user : await newUser(clients);
      const other = await newUser(clients);
      const requestId = unique("request");
      const first = await users.deleteUser({ id, requestId });
      expect(await users.deleteUser({ id, requestId })).toEqual(first);
      await expectReusedRequestId(users.deleteUser({ id: other.id, requestId }), requestId);
      expect((await byId(other.id)).user).toEqual(other);
    });

    test("rejects an invalid user", async () => {
      await expectInvalid(users.deleteUser({}), "id");
      await expectInvalid(users.deleteUser({ id: -1n, requestId: "r".repeat(65) }), "id", "request_id");
    });
  });
});
