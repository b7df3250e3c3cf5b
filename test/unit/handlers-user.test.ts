import { describe, expect, it } from "vitest";
import { createFakeBackend, FAKE_NOW } from "../support/fake-backend.ts";
import { createInMemoryClients, refusalOf } from "../support/in-memory-clients.ts";

function start() {
  const backend = createFakeBackend();
  return { backend, ...createInMemoryClients(backend) };
}

describe("CreateUser", () => {
  it("returns the complete user and its agent", async () => {
    const { users } = start();
    const { user, agent } = await users.createUser({
      username: "ada",
      email: "ada@example.org",
      displayName: "Ada",
      agentId: "scribe-7",
      clawIdentifier: "claw-9",
    });
    expect(user).toMatchObject({ username: "ada", email: "ada@example.org", displayName: "Ada", agentId: "scribe-7" });
    expect(user?.createdAt).toMatchObject({ seconds: 1_790_000_000n, nanos: (FAKE_NOW % 1_000_000) * 1_000 });
    expect(agent).toMatchObject({ agentId: "scribe-7", clawIdentifier: "claw-9", userId: user?.id, status: 1 });
  });

  it("treats an empty address, agent_id and claw_identifier as unset", async () => {
    const { users } = start();
    const { user, agent } = await users.createUser({ username: "ada", email: "", agentId: "", clawIdentifier: "" });
    expect(user?.email).toBeUndefined();
    expect(user?.agentId).toBeUndefined();
    expect(agent).toBeUndefined();
  });

  it.each([
    { request: {}, fields: ["username"] },
    { request: { username: "x".repeat(129) }, fields: ["username"] },
    { request: { username: "a\u0000b" }, fields: ["username"] },
    { request: { username: "a", email: "nobody" }, fields: ["email"] },
    { request: { username: "a", displayName: "x".repeat(257) }, fields: ["display_name"] },
    { request: { username: "a", requestId: "x".repeat(65) }, fields: ["request_id"] },
    { request: { username: "a", agentId: "scribe" }, fields: ["claw_identifier"] },
    { request: { username: "a", agentId: "scribe", clawIdentifier: "" }, fields: ["claw_identifier"] },
    { request: { username: "a", clawIdentifier: "claw" }, fields: ["agent_id"] },
    { request: { agentId: "\u0007", clawIdentifier: "claw" }, fields: ["username", "agent_id"] },
  ])("rejects $fields in $request", async ({ request, fields }) => {
    const { users } = start();
    expect(await refusalOf(users.createUser(request))).toMatchObject({
      code: "InvalidArgument",
      reason: "INVALID_FIELD",
      fields,
    });
  });

  it("limits names by code points, not by bytes or UTF-16 units", async () => {
    const { users } = start();
    const username = "🛟".repeat(128);
    expect((await users.createUser({ username })).user?.username).toBe(username);
    const { fields } = await refusalOf(users.createUser({ username: `${username}🛟` }));
    expect(fields).toEqual(["username"]);
  });

  it("passes on an error with its reason", async () => {
    const { users } = start();
    await users.createUser({ username: "ada" });
    expect(await refusalOf(users.createUser({ username: "ada" }))).toMatchObject({
      code: "AlreadyExists",
      reason: "USERNAME_TAKEN",
      fields: [],
    });
  });
});

describe("GetUser", () => {
  it("finds by each key", async () => {
    const { users } = start();
    const { user } = await users.createUser({ username: "ada", agentId: "scribe", clawIdentifier: "claw" });
    const id = user?.id ?? 0n;
    for (const key of [
      { case: "id" as const, value: id },
      { case: "username" as const, value: "ada" },
      { case: "agentId" as const, value: "scribe" },
    ]) {
      expect((await users.getUser({ key })).user).toMatchObject({ id, username: "ada" });
    }
    expect(await refusalOf(users.getUser({ key: { case: "username", value: "bob" } }))).toMatchObject({
      code: "NotFound",
      reason: "USER_NOT_FOUND",
    });
  });

  it.each([
    { key: { case: undefined }, fields: ["key"] },
    { key: { case: "id" as const, value: 0n }, fields: ["id"] },
    { key: { case: "id" as const, value: -1n }, fields: ["id"] },
    { key: { case: "username" as const, value: "" }, fields: ["username"] },
    { key: { case: "agentId" as const, value: "x".repeat(129) }, fields: ["agent_id"] },
  ])("rejects $key", async ({ key, fields }) => {
    const { users } = start();
    expect(await refusalOf(users.getUser({ key }))).toMatchObject({ reason: "INVALID_FIELD", fields });
  });
});

describe("UpdateUser", () => {
  it("keeps unset fields, and removes an address by an empty one", async () => {
    const { users } = start();
    const { user } = await users.createUser({ username: "ada", email: "ada@example.org", displayName: "Ada" });
    const id = user?.id ?? 0n;
    expect((await users.updateUser({ id, displayName: "" })).user).toMatchObject({
      email: "ada@example.org",
      displayName: "",
    });
    expect((await users.updateUser({ id, displayName: "A." })).user?.email).toBe("ada@example.org");
    const { user: after } = await users.updateUser({ id, email: "" });
    expect(after?.email).toBeUndefined();
    expect(after?.displayName).toBe("A.");
  });

  it.each([
    { request: {}, fields: ["id"] },
    { request: { id: 1n, email: "@" }, fields: ["email"] },
    { request: { id: 1n, displayName: "\n", requestId: "\n" }, fields: ["display_name", "request_id"] },
  ])("rejects $fields in $request", async ({ request, fields }) => {
    const { users } = start();
    expect(await refusalOf(users.updateUser(request))).toMatchObject({ reason: "INVALID_FIELD", fields });
  });
});

describe("DeleteUser", () => {
  it("deletes, and records the caller", async () => {
    const { users, backend } = start();
    const { user } = await users.createUser({ username: "ada", agentId: "scribe", clawIdentifier: "claw" });
    await users.deleteUser({ id: user?.id ?? 0n, requestId: "bye" });
    expect(backend.calls.mutations.at(-1)).toMatchObject({ actor: "service:anonymous", request: { id: "bye" } });
    expect((await refusalOf(users.deleteUser({ id: user?.id ?? 0n }))).reason).toBe("USER_NOT_FOUND");
    expect((await refusalOf(users.deleteUser({}))).fields).toEqual(["id"]);
  });
});

describe("the fingerprint of a mutation", () => {
  it("covers method and content, not the request_id", async () => {
    const { users, agents, backend } = start();
    await users.createUser({ username: "a", requestId: "r1" });
    await refusalOf(users.createUser({ username: "a", requestId: "r1" }));
    await users.createUser({ username: "b", requestId: "r1" });
    await users.createUser({ username: "c", displayName: "C", requestId: "r1" });
    await users.createUser({ username: "d" });
    backend.put("scribe");
    await agents.moveAgent({ agentId: "scribe", clawIdentifier: "x", requestId: "r1" });
    await agents.moveAgent({ agentId: "scribe", clawIdentifier: "x", requestId: "r2" });
    await agents.deleteAgent({ agentId: "scribe", requestId: "r1" });
    const [first, , , without, move, again, deletion] = backend.calls.mutations.map(({ request }) => request);
    expect(without).toBeUndefined();
    expect(move?.fingerprint).toBe(again?.fingerprint);
    expect(move?.id).not.toBe(again?.id);
    expect(deletion?.fingerprint).not.toBe(move?.fingerprint);
    expect(first?.fingerprint).toMatch(/^[0-9a-f]{64}$/);
    const all = backend.calls.mutations.map(({ request }) => request?.fingerprint);
    expect(new Set(all.slice(0, 3)).size).toBe(3);
  });

  it("is the same for the same content in another encoding", async () => {
    const backend = createFakeBackend();
    for (const encoding of ["binary", "json"] as const) {
      backend.put("scribe");
      const { agents } = createInMemoryClients(backend, encoding);
      await agents.updateAgentStatus({
        agentId: "scribe",
        status: 4,
        exhaustion: { reason: 1, recovery: { case: "retryAfter", value: { seconds: 5n } } },
        requestId: "r1",
      });
    }
    const [one, other] = backend.calls.mutations;
    expect(one?.request).toEqual(other?.request);
  });
});
