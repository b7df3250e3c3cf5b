import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { toRfc3339 } from "../../common/contract/time.ts";
import { mintToken } from "../../src/access/token-text.ts";
import type { Agent } from "../../src/domain/agent.ts";
import type { Call } from "../../src/domain/directories.ts";
import { type AgentWrite, KEEP_LEASE } from "../../src/storage/agent-change.ts";
import type { Change } from "../../src/storage/committer.ts";
import { createTokenDirectory } from "../../src/storage/token-directory.ts";
import { Gate } from "../support/gate.ts";
import { RowLocks } from "../support/gate-locks.ts";
import { by, createTestStorage, openStorage, refused } from "../support/storage.ts";
import { until } from "../support/until.ts";

/** Time for a change to reach the lock that blocks it, also on a busy machine. */
const SOON_MS = 500;

let storage: Awaited<ReturnType<typeof createTestStorage>>;
let gate: Gate;
let locks: RowLocks;
beforeAll(async () => {
  storage = await createTestStorage();
  gate = new Gate(storage.database);
  locks = await RowLocks.open(storage.url);
});
afterAll(async () => {
  await locks[Symbol.asyncDispose]();
  await storage[Symbol.asyncDispose]();
});

let made = 0;

async function createAgent(): Promise<Agent> {
  const agentId = `agent-${++made}`;
  const user = { username: agentId, email: null, displayName: "", agent: { agentId, clawIdentifier: "claw-0" } };
  const { agent } = await storage.users.create(user, by());
  if (agent === undefined) throw new TypeError("an agent was asked for");
  return agent;
}

const clawOf = async ({ agentId }: Agent): Promise<string> => (await storage.agents.get({ agentId })).clawIdentifier;

/** A move that counts how often it was judged. */
function move({ agentId }: Agent, more: Partial<Change<Agent>> = {}): Change<Agent> & { readonly judged: number } {
  return {
    agentId,
    actor: "server",
    judged: 0,
    judge(agent) {
      this.judged += 1;
      if (agent === undefined) throw new Error("there is no such agent");
      const write: AgentWrite = { kind: "update", agent, cause: "moved", clawIdentifier: "claw-1", lease: KEEP_LEASE };
      return { kind: "write", write, result: (committed) => committed.agent };
    },
    ...more,
  } as Change<Agent> & { judged: number };
}

const soon = (): number => performance.now() + SOON_MS;
const called = (): Call => ({ deadline: soon(), over: false });
const passed = (deadline: number): Promise<true> =>
  until("the deadline passes", () => performance.now() >= deadline && true);
const UNAVAILABLE = refused("DATABASE_UNAVAILABLE");

describe("a change whose deadline passes", () => {
  test("on its way to the database is not applied when it arrives", async () => {
    const agent = await createAgent();
    using hold = gate.hold("commit-changes");
    const deadline = soon();
    const moved = expect(storage.committer.submit(move(agent, { deadline }))).rejects.toMatchObject(UNAVAILABLE);
    await hold.arrived();
    await passed(deadline);
    hold.release();
    await moved;
    expect(await clawOf(agent)).toBe("claw-0");
  });

  test("while it waits for the lock of the agent is not applied", async () => {
    const agent = await createAgent();
    await locks.takeLiveness(agent.agentId);
    const deadline = soon();
    const moved = expect(storage.committer.submit(move(agent, { deadline }))).rejects.toMatchObject(UNAVAILABLE);
    await locks.waiting("commit-changes");
    await passed(deadline);
    await locks.commit();
    await moved;
    expect(await clawOf(agent)).toBe("claw-0");
  });

  test("while its group waits for the counter is not applied and leaves nothing, and the rest of the group commits", async () => {
    const [late, neighbour, owner] = [await createAgent(), await createAgent(), await createAgent()];
    await storage.agents.delete(owner.agentId, by());
    await locks.takeCounter();
    const call = called();
    const created = `late-${++made}`;
    const user = { username: created, email: null, displayName: "" };
    const group = [
      storage.agents.move(late.agentId, "claw-1", { ...by(`move-${late.id}`), call }),
      storage.users.create(
        { ...user, agent: { agentId: created, clawIdentifier: "claw-1" } },
        { ...by(`create-${late.id}`), call },
      ),
      storage.agents.create(
        { userId: owner.userId, agentId: `${created}-2`, clawIdentifier: "claw-1" },
        { ...by(`bind-${late.id}`), call },
      ),
      storage.committer.submit(move(neighbour)),
    ];
    const settled = Promise.allSettled(group);
    await locks.waiting("commit-changes");
    await passed(call.deadline);
    await locks.commit();
    expect((await settled).map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected", "fulfilled"]);

    expect([await clawOf(late), await clawOf(neighbour)]).toEqual(["claw-0", "claw-1"]);
    const traces = await storage.query<{ count: number }>(
      `SELECT (SELECT count(*) FROM agents WHERE agent_id LIKE $1 || '%') + (SELECT count(*) FROM users WHERE username = $1)
         + (SELECT count(*) FROM agent_liveness l WHERE NOT EXISTS (SELECT FROM agents a WHERE a.id = l.agent))
         + (SELECT count(*) FROM request_ids WHERE request_id LIKE '%-' || $2) AS count`,
      [created, late.id],
    );
    expect(Number(traces[0]?.count)).toBe(0);
    // The database records nothing of a request that was not carried out.
    expect((await storage.agents.move(late.agentId, "claw-2", by(`move-${late.id}`))).clawIdentifier).toBe("claw-2");
  });

  test("is judged by the clock of the server that receives it after a failover to another primary", async () => {
    const [agent, blocked] = [await createAgent(), await createAgent()];
    // As if the clock of the former primary was ten seconds ahead, and its connections are closed.
    storage.database.clock.observe(storage.database.clock.now() + 10_000_000, performance.now());
    await storage
      .query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND starts_with(application_name, 'harborforge-agents')`,
      )
      .catch(() => undefined);
    await until("the database answers", () => storage.query("SELECT 1").catch(() => undefined));
    await locks.takeCounter();
    const call = called();
    const created = `created-${agent.id}`;
    const user = { username: created, email: null, displayName: "" };
    const creation = expect(
      storage.users.create(
        { ...user, agent: { agentId: created, clawIdentifier: blocked.clawIdentifier } },
        { ...by(), call },
      ),
    ).rejects.toMatchObject(UNAVAILABLE);
    await locks.waiting("commit-changes");
    await passed(call.deadline);
    await locks.commit();
    await creation;
    await expect(storage.agents.get({ agentId: created })).rejects.toMatchObject(
      refused("AGENT_NOT_FOUND", expect.anything()),
    );
  });

  test("while it waits for another change of its agent is dropped before it is judged", async () => {
    const agent = await createAgent();
    using hold = gate.hold("commit-changes", "before", 1);
    const first = storage.committer.submit(move(agent));
    await hold.arrived();
    const second = move(agent, { deadline: soon() });
    const dropped = expect(storage.committer.submit(second)).rejects.toMatchObject(UNAVAILABLE);
    await passed(second.deadline ?? 0);
    hold.release();
    await Promise.all([first, dropped]);
    expect(second.judged).toBe(0);
  });

  test("by a clock reading from a slow response is checked against a new reading, and applied", async () => {
    const agent = await createAgent();
    // As if the last response had taken ten seconds to arrive.
    storage.database.clock.observe(storage.database.clock.now() - 10_000_000, performance.now());
    const moved = await storage.committer.submit(move(agent, { deadline: performance.now() + 5_000 }));
    expect(moved.clawIdentifier).toBe("claw-1");
    storage.database.clock.observe(storage.database.clock.now() - 10_000_000, performance.now());
    const { displayName } = await storage.users.update(agent.userId, { displayName: "in time" }, by());
    expect(displayName).toBe("in time");
  });

  test("by the clock of this machine, before the first clock reading, is judged by the clock of the database", async () => {
    const agent = await createAgent();
    const { now } = Date;
    Date.now = () => now() + 3_600_000;
    await using ahead = openStorage(storage.url, 2);
    Date.now = now;
    const held = new Gate(ahead.database);
    using hold = held.hold("commit-changes");
    const deadline = soon();
    const known = { known: agent, deadline };
    const moved = expect(ahead.committer.submit(move(agent, known))).rejects.toMatchObject(UNAVAILABLE);
    await hold.arrived();
    await passed(deadline);
    hold.release();
    await moved;
    expect(await clawOf(agent)).toBe("claw-0");
  });
});

describe("a change whose call ends", () => {
  test.each(["agents-to-judge", "read-answers"])("during %s is neither judged nor applied", async (query) => {
    const agent = await createAgent();
    using hold = gate.hold(query);
    const call = { over: false };
    const { request } = by(`gone-${agent.id}`);
    const change = move(agent, { call, request, deadline: performance.now() + 60_000 });
    const dropped = expect(storage.committer.submit(change)).rejects.toMatchObject(UNAVAILABLE);
    await hold.arrived();
    call.over = true;
    hold.release();
    await dropped;
    expect(change.judged).toBe(0);
    expect(await clawOf(agent)).toBe("claw-0");
  });
});

describe("a change of a user", () => {
  test("is not applied when it waits for the lock of the user past its deadline", async () => {
    const { userId } = await createAgent();
    await locks.write("BEGIN");
    await locks.write("SELECT FROM users WHERE id = $1 FOR UPDATE", userId);
    const call = called();
    const mutation = { ...by(`rename-${userId}`), call };
    const renamed = expect(storage.users.update(userId, { displayName: "late" }, mutation)).rejects.toMatchObject(
      UNAVAILABLE,
    );
    await passed(call.deadline);
    await locks.commit();
    await renamed;
    expect((await storage.users.get({ id: userId })).displayName).toBe("");
    expect((await storage.users.update(userId, { displayName: "anew" }, by(`rename-${userId}`))).displayName).toBe(
      "anew",
    );
  });

  test("runs no statement when its call ends before it gets a connection", async () => {
    const { userId } = await createAgent();
    await locks.write("BEGIN");
    await locks.write("SELECT FROM users WHERE id = $1 FOR UPDATE", userId);
    const waiting = Array.from({ length: 5 }, () => storage.users.update(userId, { displayName: "held" }, by()));
    const call = { deadline: performance.now() + 60_000, over: false };
    const gone = expect(storage.users.update(userId, { displayName: "gone" }, { ...by(), call })).rejects.toMatchObject(
      UNAVAILABLE,
    );
    // Reads proceed while changes wait.
    expect((await storage.users.list({ after: undefined, limit: 1 })).rows).toHaveLength(1);
    call.over = true;
    await locks.commit();
    await Promise.all([...waiting, gone]);
    expect((await storage.users.get({ id: userId })).displayName).toBe("held");
  });

  test("is rolled back by the database when COMMIT does not arrive before the deadline", async () => {
    const { userId } = await createAgent();
    const client = new pg.Client({ connectionString: storage.url });
    const ended = new Promise((resolve) => client.on("error", resolve));
    await client.connect();
    await client.query("BEGIN");
    await client.query("UPDATE users SET display_name = 'late' WHERE id = $1", [userId]);
    await client.query("SELECT commit_before(clock_timestamp() + interval '100 milliseconds')");
    await ended;
    expect((await storage.users.get({ id: userId })).displayName).toBe("");
    await client.end().catch(() => undefined);
  });
});

test("a token is not issued after its deadline", async () => {
  const tokens = createTokenDirectory(storage.database, mintToken);
  await locks.write("BEGIN");
  await locks.write("SELECT FROM api_token_counter FOR UPDATE");
  const call = called();
  const token = { principal: `late-${++made}`, grant: { role: "viewer" }, lifetimeMs: 60_000 } as const;
  const issued = expect(tokens.issue(token, { ...by(), call })).rejects.toMatchObject(UNAVAILABLE);
  await passed(call.deadline);
  await locks.commit();
  await issued;
  expect((await tokens.list(token.principal, { after: undefined, limit: 1 })).rows).toEqual([]);
});

test("the database rejects a deadline that has passed with an error of its own", async () => {
  const past = toRfc3339(storage.database.clock.now() - 1_000_000);
  await expect(storage.query("SELECT commit_before($1::timestamptz)", [past])).rejects.toMatchObject({ code: "HF001" });
});

test("a deadline less than a millisecond ahead is rejected, because a timeout of 0 would mean no timeout", async () => {
  const client = new pg.Client({ connectionString: storage.url });
  await client.connect();
  try {
    // Plans the call beforehand, so that less than a millisecond passes until it reads the clock.
    for (let n = 0; n < 5; n += 1) await client.query("SELECT commit_before(clock_timestamp() + interval '1 hour')");
    for (let n = 0; n < 50; n += 1) {
      await expect(
        client.query("SELECT commit_before(clock_timestamp() + interval '900 microseconds')"),
      ).rejects.toMatchObject({ code: "HF001" });
    }
  } finally {
    await client.end();
  }
});
