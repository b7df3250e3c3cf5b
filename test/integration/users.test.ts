import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { User } from "../../src/domain/agent.ts";
import type { NewUser } from "../../src/domain/directories.ts";
import { sweepRequestIds } from "../../src/storage/request-answers.ts";
import { by, createTestStorage, FIRST_LEASE_MS, openStorage, refused } from "../support/storage.ts";

let storage: Awaited<ReturnType<typeof createTestStorage>>;
beforeAll(async () => {
  storage = await createTestStorage();
});
afterAll(() => storage[Symbol.asyncDispose]());

let made = 0;
/** Names that no other test uses. */
function newUser(more: Partial<NewUser> = {}): NewUser {
  return { username: `user-${++made}`, email: null, displayName: "", agent: undefined, ...more };
}

function newAgent() {
  return { agentId: `agent-of-users-${++made}`, clawIdentifier: "claw-1" };
}

describe("a user", () => {
  test("is created, and found by its id and its username", async () => {
    const { user, agent } = await storage.users.create(newUser({ email: "ada@example.com", displayName: "Ada" }), by());
    expect(agent).toBeUndefined();
    expect(user).toEqual({
      id: expect.any(BigInt),
      username: `user-${made}`,
      email: "ada@example.com",
      displayName: "Ada",
      agentId: null,
      createdAt: expect.any(Number),
    });
    expect(await storage.users.get({ id: user.id })).toEqual(user);
    expect(await storage.users.get({ username: user.username })).toEqual(user);
    const [row] = await storage.query<{ micros: bigint }>(
      "SELECT (extract(epoch FROM created_at) * 1000000)::bigint AS micros FROM users WHERE id = $1",
      [user.id],
    );
    expect(BigInt(user.createdAt)).toBe(row?.micros);
  });

  test("is created with its agent, which is a transition", async () => {
    const agentFields = newAgent();
    const { user, agent } = await storage.users.create(newUser({ agent: agentFields }), by());
    expect(user.agentId).toBe(agentFields.agentId);
    expect(agent).toMatchObject({ ...agentFields, userId: user.id, status: "idle", exhaustion: null, held: false });
    expect(agent?.leaseExpiresAt).toBeGreaterThan((agent?.createdAt ?? 0) + FIRST_LEASE_MS * 1_000 - 1);
    expect(storage.leases).toContainEqual(agent);
    expect(await storage.users.get({ agentId: agentFields.agentId })).toEqual(user);
    const transitions = await storage.query(
      "SELECT revision, cause, actor, from_status, to_status FROM agent_transitions WHERE user_id = $1",
      [user.id],
    );
    expect(transitions).toEqual([
      { revision: agent?.revision, cause: "created", actor: "service:test", from_status: null, to_status: "idle" },
    ]);
  });

  test("is not found under unknown keys", async () => {
    await expect(storage.users.get({ id: 2n ** 60n })).rejects.toMatchObject(
      refused("USER_NOT_FOUND", { userId: "1152921504606846976" }),
    );
    await expect(storage.users.get({ username: "nobody" })).rejects.toMatchObject(
      refused("USER_NOT_FOUND", { username: "nobody" }),
    );
    await expect(storage.users.get({ agentId: "nobody" })).rejects.toMatchObject(
      refused("USER_NOT_FOUND", { agentId: "nobody" }),
    );
  });

  test("requires a unique username, email address and agent_id", async () => {
    const agent = newAgent();
    const taken = newUser({ email: "taken@example.com", agent });
    await storage.users.create(taken, by());
    const usernameTaken = refused("USERNAME_TAKEN", { username: taken.username });
    const emailTaken = refused("EMAIL_TAKEN", { email: "taken@example.com" });
    await expect(storage.users.create(newUser({ username: taken.username }), by())).rejects.toMatchObject(
      usernameTaken,
    );
    await expect(
      storage.users.create(newUser({ username: taken.username, agent: newAgent() }), by()),
    ).rejects.toMatchObject(usernameTaken);
    await expect(storage.users.create(newUser({ email: "taken@example.com" }), by())).rejects.toMatchObject(emailTaken);
    const late = newUser({ email: "taken@example.com", agent: newAgent() });
    await expect(storage.users.create(late, by())).rejects.toMatchObject(emailTaken);
    const withAgent = newUser({ agent });
    await expect(storage.users.create(withAgent, by())).rejects.toMatchObject(
      refused("AGENT_ID_TAKEN", { agentId: agent.agentId }),
    );
    // All or nothing.
    await expect(storage.users.get({ username: withAgent.username })).rejects.toMatchObject({
      reason: "USER_NOT_FOUND",
    });
  });

  test("keeps names that differ only in case or normal form apart", async () => {
    for (const username of ["Zoé", "zoé", "Zoe\u0301"]) await storage.users.create(newUser({ username }), by());
    expect((await storage.users.get({ username: "zoé" })).username).toBe("zoé");
  });

  test("is updated only in the fields of the request", async () => {
    const { user } = await storage.users.create(newUser({ email: "grace@example.com", displayName: "Grace" }), by());
    const renamed = await storage.users.update(user.id, { displayName: "Admiral" }, by());
    expect(renamed).toEqual({ ...user, displayName: "Admiral" });
    expect(await storage.users.update(user.id, {}, by())).toEqual(renamed);
    expect(await storage.users.update(user.id, { email: null }, by())).toEqual({ ...renamed, email: null });
    await storage.users.create(newUser({ email: "hopper@example.com" }), by());
    await expect(storage.users.update(user.id, { email: "hopper@example.com" }, by())).rejects.toMatchObject(
      refused("EMAIL_TAKEN", { email: "hopper@example.com" }),
    );
    await expect(storage.users.update(99_999n, { displayName: "" }, by())).rejects.toMatchObject(
      refused("USER_NOT_FOUND", { userId: "99999" }),
    );
  });

  test("is deleted with its agent, which is a transition", async () => {
    const { user } = await storage.users.create(newUser({ agent: newAgent() }), by());
    await storage.users.delete(user.id, by());
    await expect(storage.users.get({ id: user.id })).rejects.toMatchObject({ reason: "USER_NOT_FOUND" });
    await expect(storage.agents.get({ userId: user.id })).rejects.toMatchObject({ reason: "AGENT_NOT_FOUND" });
    const transitions = await storage.query<{ cause: string; actor: string }>(
      "SELECT cause, actor FROM agent_transitions WHERE user_id = $1 ORDER BY revision",
      [user.id],
    );
    expect(transitions).toEqual([
      { cause: "created", actor: "service:test" },
      { cause: "deleted", actor: "service:test" },
    ]);
    await expect(storage.users.delete(user.id, by())).rejects.toMatchObject(
      refused("USER_NOT_FOUND", { userId: user.id.toString() }),
    );
  });

  test("is deleted without an agent, too", async () => {
    const { user } = await storage.users.create(newUser(), by());
    await storage.users.delete(user.id, by());
    await expect(storage.users.get({ id: user.id })).rejects.toMatchObject({ reason: "USER_NOT_FOUND" });
  });

  test("is deleted while an agent is created for it: one comes first, and no agent without user remains", async () => {
    for (let round = 0; round < 10; round++) {
      const { user } = await storage.users.create(newUser(), by());
      const { agentId, clawIdentifier } = newAgent();
      const [deleted, created] = await Promise.allSettled([
        storage.users.delete(user.id, by()),
        storage.agents.create({ userId: user.id, agentId, clawIdentifier }, by()),
      ]);
      expect(deleted.status).toBe("fulfilled");
      if (created.status === "rejected") expect(created.reason).toMatchObject({ reason: "USER_NOT_FOUND" });
      await expect(storage.agents.get({ agentId })).rejects.toMatchObject({ reason: "AGENT_NOT_FOUND" });
    }
  });
});

test("users are listed in pages by id", async () => {
  await using other = await createTestStorage();
  const users: User[] = [];
  for (const agent of [undefined, newAgent(), undefined, newAgent(), undefined]) {
    users.push((await other.users.create(newUser({ agent }), by())).user);
  }
  const first = await other.users.list({ after: undefined, limit: 2 });
  const second = await other.users.list({ after: first.next, limit: 2 });
  const third = await other.users.list({ after: second.next, limit: 2 });
  expect([...first.rows, ...second.rows, ...third.rows]).toEqual(users);
  expect([first.next, second.next, third.next]).toEqual([users[1]?.id, users[3]?.id, undefined]);
  expect((await other.users.list({ after: undefined, limit: 5 })).next).toBeUndefined();
  expect(await other.users.list({ after: users[4]?.id, limit: 5 })).toEqual({ rows: [], next: undefined });
});

describe("a repeated request", () => {
  test("creates one user and returns the first response, whatever happened to the user since", async () => {
    const user = newUser({ email: "once@example.com", displayName: "Once" });
    const first = await storage.users.create(user, by("create-1"));
    await storage.users.update(first.user.id, { displayName: "Changed" }, by());
    expect(await storage.users.create(user, by("create-1"))).toEqual(first);
    await storage.users.delete(first.user.id, by());
    expect(await storage.users.create(user, by("create-1"))).toEqual(first);
    await expect(storage.users.get({ id: first.user.id })).rejects.toMatchObject({ reason: "USER_NOT_FOUND" });
  });

  test("creates one user with its agent", async () => {
    const user = newUser({ agent: newAgent() });
    const first = await storage.users.create(user, by("create-2"));
    expect(await storage.users.create(user, by("create-2"))).toEqual(first);
    await storage.users.delete(first.user.id, by());
    expect(await storage.users.create(user, by("create-2"))).toEqual(first);
  });

  test("updates once and returns the first response", async () => {
    const { user } = await storage.users.create(newUser({ agent: newAgent() }), by());
    const first = await storage.users.update(user.id, { displayName: "First" }, by("update-1"));
    await storage.users.update(user.id, { displayName: "Second" }, by());
    expect(await storage.users.update(user.id, { displayName: "First" }, by("update-1"))).toEqual(first);
    expect((await storage.users.get({ id: user.id })).displayName).toBe("Second");
  });

  test("deletes once, with an agent and without", async () => {
    for (const agent of [undefined, newAgent()]) {
      const { user } = await storage.users.create(newUser({ agent }), by());
      await storage.users.delete(user.id, by(`delete-${user.id}`));
      await storage.users.delete(user.id, by(`delete-${user.id}`));
      await expect(storage.users.delete(user.id, by(`delete-${user.id}-again`))).rejects.toMatchObject({
        reason: "USER_NOT_FOUND",
      });
    }
  });

  test("at the same time, on two replicas, creates one user and returns one response", async () => {
    await using other = openStorage(storage.url, 2);
    for (const agent of [undefined, newAgent()]) {
      const user = newUser({ agent });
      const request = by(`same-time-${made}`);
      const answers = await Promise.all(
        [storage, other, storage, other].map((replica) => replica.users.create(user, request)),
      );
      for (const answer of answers) expect(answer).toEqual(answers[0]);
      const deletion = by(`same-time-${made}-delete`);
      const { id } = answers[0]?.user ?? { id: 0n };
      await Promise.all([storage, other, storage, other].map((replica) => replica.users.delete(id, deletion)));
    }
  });

  test("with other content is rejected, whichever method came first", async () => {
    const { user } = await storage.users.create(newUser(), by("reused-1", "one"));
    const reused = refused("REQUEST_ID_REUSED", { requestId: "reused-1" });
    const other = by("reused-1", "other");
    await expect(storage.users.create(newUser(), other)).rejects.toMatchObject(reused);
    await expect(storage.users.create(newUser({ agent: newAgent() }), other)).rejects.toMatchObject(reused);
    await expect(storage.users.update(user.id, { displayName: "x" }, other)).rejects.toMatchObject(reused);
    await expect(storage.users.delete(user.id, other)).rejects.toMatchObject(reused);
    expect((await storage.users.get({ id: user.id })).displayName).toBe("");
  });

  test("is not recorded by a rejection: the same request may succeed later", async () => {
    const first = await storage.users.create(newUser({ email: "busy@example.com" }), by());
    const user = newUser({ email: "busy@example.com" });
    await expect(storage.users.create(user, by("later-1"))).rejects.toMatchObject({ reason: "EMAIL_TAKEN" });
    await storage.users.update(first.user.id, { email: null }, by());
    expect((await storage.users.create(user, by("later-1"))).user.email).toBe("busy@example.com");
  });

  test("is recorded for 24 hours, and a sweep removes it then", async () => {
    const { user } = await storage.users.create(newUser(), by("old-1"));
    await storage.users.update(user.id, { displayName: "One" }, by("old-2"));
    await storage.query(
      "UPDATE request_ids SET created_at = created_at - interval '25 hours' WHERE request_id LIKE 'old-%'",
    );
    // Not swept yet, and new all the same: here alone and with an agent, which takes another path.
    await storage.users.update(user.id, { displayName: "Two" }, by("old-2", "other content"));
    expect((await storage.users.get({ id: user.id })).displayName).toBe("Two");
    const { agent } = await storage.users.create(newUser({ agent: newAgent() }), by("old-1", "other content"));
    await storage.agents.delete(agent?.agentId ?? "", by("old-3"));
    await storage.query(
      "UPDATE request_ids SET created_at = created_at - interval '25 hours' WHERE request_id LIKE 'old-%'",
    );
    expect(await sweepRequestIds(storage.database)).toBe(3);
    expect(await storage.query("SELECT FROM request_ids WHERE request_id LIKE 'old-%'")).toEqual([]);
    expect(await storage.query("SELECT FROM request_ids")).not.toEqual([]);
  });
});
