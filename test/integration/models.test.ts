import { afterAll, beforeAll, expect, test } from "vitest";
import { Agent } from "../../src/storage/models/agent.ts";
import { AgentTransition } from "../../src/storage/models/agent-transition.ts";
import { User } from "../../src/storage/models/user.ts";
import { by, createTestStorage } from "../support/storage.ts";

/** Beyond the precision of a JavaScript number. */
const LARGE = 2n ** 53n + 1n;

let storage: Awaited<ReturnType<typeof createTestStorage>>;
beforeAll(async () => {
  storage = await createTestStorage();
  await storage.query(`ALTER TABLE users ALTER COLUMN id RESTART WITH ${LARGE}`);
  await storage.query(`ALTER TABLE agents ALTER COLUMN id RESTART WITH ${LARGE}`);
  for (const name of ["ada", "grace"]) {
    const agent = { agentId: `agent-of-${name}`, clawIdentifier: "claw-1" };
    await storage.users.create({ username: name, email: null, displayName: "", agent }, by());
  }
  await storage.users.create({ username: "alone", email: null, displayName: "", agent: undefined }, by());
  await storage.agents.move("agent-of-ada", "claw-2", by());
});
afterAll(() => storage[Symbol.asyncDispose]());

test("numbers of rows are written and read without loss", async () => {
  const { knex } = storage.database;
  const users = await User.query(knex).orderBy("id");
  expect(users.map(({ id }) => id)).toEqual([LARGE, LARGE + 1n, LARGE + 2n]);
  expect((await User.query(knex).findById(LARGE + 1n))?.username).toBe("grace");
  expect((await storage.users.get({ id: LARGE })).id).toBe(LARGE);
  expect((await storage.agents.get({ userId: LARGE })).id).toBe(LARGE);
});

test("models have no own key that is undefined, and instants are microseconds", async () => {
  const { knex } = storage.database;
  const found = [await User.query(knex).first(), await Agent.query(knex).first()];
  for (const model of [...found, await AgentTransition.query(knex).first()]) {
    expect(Object.keys(model ?? {})).not.toEqual([]);
    for (const [key, value] of Object.entries(model ?? {})) expect([key, value]).not.toEqual([key, undefined]);
  }
  expect(Object.keys(new User())).toEqual([]);
  const [row] = await storage.query<{ micros: bigint }>(
    "SELECT (extract(epoch FROM created_at) * 1000000)::bigint AS micros FROM users ORDER BY id LIMIT 1",
  );
  expect(BigInt(found[0]?.createdAt ?? 0)).toBe(row?.micros);
});

test("relations lead from users to agents, from agents to users and transitions, and from those to agents", async () => {
  const { knex } = storage.database;
  const users = await User.query(knex).withGraphFetched("agent.transitions").orderBy("id");
  expect(users.map(({ agent }) => agent?.agentId)).toEqual(["agent-of-ada", "agent-of-grace", undefined]);
  expect(users.map(({ agent }) => agent?.transitions?.length)).toEqual([2, 1, undefined]);
  expect(users.map((user) => user.toDomain().agentId)).toEqual(["agent-of-ada", "agent-of-grace", null]);

  const agents = await Agent.query(knex).withGraphFetched("user").orderBy("agent_states.id");
  expect(agents.map(({ user }) => user?.username)).toEqual(["ada", "grace"]);
  const joined = await Agent.query(knex).withGraphJoined("user").where("user.username", "grace");
  expect(joined.map(({ agentId }) => agentId)).toEqual(["agent-of-grace"]);

  const transitions = await AgentTransition.query(knex).withGraphFetched("agent").orderBy("revision");
  expect(transitions.map(({ cause, agent }) => [cause, agent?.clawIdentifier])).toEqual([
    ["created", "claw-2"],
    ["created", "claw-1"],
    ["moved", "claw-2"],
  ]);
  expect(transitions.map(({ agentRow }) => agentRow)).toEqual([LARGE, LARGE + 1n, LARGE]);
  const [lastOfAda] = await AgentTransition.relatedQuery("agent", knex).for(
    AgentTransition.query(knex).where("cause", "moved"),
  );
  expect(lastOfAda).toMatchObject({ agentId: "agent-of-ada" });
});

test("models are not bound to a database of the process", () => {
  for (const model of [User, Agent, AgentTransition]) expect(model.knex()).toBeUndefined();
});
