import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { toRfc3339 } from "../../common/contract/time.ts";
import type { Agent } from "../../src/domain/agent.ts";
import { EVERY_AGENT } from "../../src/domain/filter.ts";
import { by, createTestStorage, FIRST_LEASE_MS, openStorage, refused } from "../support/storage.ts";

let storage: Awaited<ReturnType<typeof createTestStorage>>;
beforeAll(async () => {
  storage = await createTestStorage();
});
afterAll(() => storage[Symbol.asyncDispose]());

let made = 0;

async function createUser(target = storage): Promise<bigint> {
  return (
    await target.users.create({ username: `owner-${++made}`, email: null, displayName: "", agent: undefined }, by())
  ).user.id;
}

async function createAgent({ claw = "claw-1", target = storage } = {}): Promise<Agent> {
  const userId = await createUser(target);
  return await target.agents.create({ userId, agentId: `agent-${made}`, clawIdentifier: claw }, by());
}

const WORD = { holdMs: undefined };
const RATE_LIMIT = { exhausted: { reason: "rate_limit", retryAfterMs: 60_000 } } as const;

describe("a new agent", () => {
  test("is idle, holds a first lease, and can be read by its agent_id and by its user", async () => {
    const before = storage.leases.length;
    const agent = await createAgent();
    expect(agent).toMatchObject({ status: "idle", exhaustion: null, hold: null, held: false, lastHeartbeat: null });
    expect(agent.replicaId).toBe(1);
    // The lease runs from the commit, a moment after the row was made.
    const leaseMs = ((agent.leaseExpiresAt ?? 0) - agent.createdAt) / 1_000;
    expect(leaseMs).toBeGreaterThanOrEqual(FIRST_LEASE_MS);
    const [row] = await storage.query<{ now: number }>("SELECT clock_timestamp() AS now");
    expect(agent.leaseExpiresAt).toBeLessThanOrEqual((row?.now ?? 0) + FIRST_LEASE_MS * 1_000);
    expect(await storage.agents.get({ agentId: agent.agentId })).toEqual(agent);
    expect(await storage.agents.get({ userId: agent.userId })).toEqual(agent);
    expect(storage.leases.slice(before)).toEqual([agent]);
  });

  test("cannot be read under keys that belong to no agent", async () => {
    await expect(storage.agents.get({ agentId: "nobody" })).rejects.toMatchObject(
      refused("AGENT_NOT_FOUND", { agentId: "nobody" }),
    );
    await expect(storage.agents.get({ userId: 9_007_199_254_740_993n })).rejects.toMatchObject(
      refused("AGENT_NOT_FOUND", { userId: "9007199254740993" }),
    );
  });

  test("is read with every change acknowledged before the read, however many reads are concurrent", async () => {
    const agents = [await createAgent(), await createAgent(), await createAgent()];
    const acknowledged = new Map(agents.map(({ agentId, revision }) => [agentId, revision]));
    const words = ["busy", "on_call", "idle"] as const;
    let changing = agents.length;
    const change = async ({ agentId }: Agent): Promise<void> => {
      for (let turn = 0; turn < 12; turn += 1) {
        const status = words[turn % words.length] ?? "idle";
        const { revision } = await storage.agents.updateStatus(agentId, { status, ...WORD }, undefined, by());
        acknowledged.set(agentId, revision);
      }
      changing -= 1;
    };
    const read = async ({ agentId, userId }: Agent, turn: number): Promise<void> => {
      while (changing > 0) {
        const atLeast = acknowledged.get(agentId) ?? 0n;
        const found = await storage.agents.get(turn % 2 === 0 ? { agentId } : { userId });
        expect(found.agentId).toBe(agentId);
        expect(found.revision).toBeGreaterThanOrEqual(atLeast);
      }
    };
    await Promise.all([
      ...agents.map(change),
      ...Array.from({ length: 6 }, (_, turn) => agents.map((agent) => read(agent, turn))).flat(),
    ]);
  });

  test("requires an existing user without an agent, and an unused agent_id", async () => {
    const agent = await createAgent();
    const free = await createUser();
    const create = (userId: bigint, agentId: string) =>
      storage.agents.create({ userId, agentId, clawIdentifier: "claw-1" }, by());
    await expect(create(free, agent.agentId)).rejects.toMatchObject(
      refused("AGENT_ID_TAKEN", { agentId: agent.agentId }),
    );
    await expect(create(agent.userId, "second")).rejects.toMatchObject(
      refused("USER_HAS_AGENT", { userId: agent.userId.toString() }),
    );
    await expect(create(99_999n, "orphan")).rejects.toMatchObject(refused("USER_NOT_FOUND", { userId: "99999" }));
    await expect(storage.agents.get({ agentId: "orphan" })).rejects.toMatchObject({ reason: "AGENT_NOT_FOUND" });
  });

  test("is created once when two replicas create the same agent_id at once", async () => {
    await using other = openStorage(storage.url, 2);
    const users = [await createUser(), await createUser()];
    const attempts = await Promise.allSettled(
      [storage, other].map((replica, index) =>
        replica.agents.create({ userId: users[index] ?? 0n, agentId: `twice-${made}`, clawIdentifier: "claw-1" }, by()),
      ),
    );
    expect(attempts.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    for (const attempt of attempts) {
      if (attempt.status === "rejected") expect(attempt.reason).toMatchObject({ reason: "AGENT_ID_TAKEN" });
    }
  });
});

describe("a batch read of agents", () => {
  test("returns agents in the requested order, once for each mention", async () => {
    const [a, b, c] = [await createAgent(), await createAgent(), await createAgent()];
    const asked = [c, a, b, a];
    expect(await storage.agents.getAll(asked.map(({ agentId }) => agentId))).toEqual(asked);
    expect(await storage.agents.getAll([])).toEqual([]);
  });

  test("rejects a request with missing agents and names them", async () => {
    const agent = await createAgent();
    await expect(storage.agents.getAll(["gone, too", agent.agentId, "gone", "gone"])).rejects.toMatchObject({
      message: 'These agents do not exist: "gone, too", "gone".',
      ...refused("AGENT_NOT_FOUND", { agentId: "gone, too", agentIds: '["gone, too","gone"]', missing: "2" }),
    });
  });

  test("names a thousand missing agents up to the size limit of a trailer", async () => {
    const names = Array.from({ length: 1_000 }, (_, index) => `${"é".repeat(120)}-${index}`);
    const refusal: unknown = await storage.agents.getAll(names).catch((error: unknown) => error);
    expect(refusal).toMatchObject({ reason: "AGENT_NOT_FOUND", metadata: { missing: "1000", agentId: names[0] } });
    const text = JSON.stringify([refusal instanceof Error && refusal.message, refusal]);
    expect(Buffer.byteLength(text)).toBeLessThan(4_096);
    expect(text).toMatch(/and 99\d more/);
  });
});

describe("ListAgents and CountAgents", () => {
  test("filter: OR within a field, AND across fields", async () => {
    await using other = await createTestStorage();
    const create = (claw: string) => createAgent({ claw, target: other });
    const [first, second, third] = [await create("a"), await create("b"), await create("a")];
    const [fourth, fifth] = [await create("c"), await create("a")];
    await other.agents.updateStatus(third.agentId, { status: "busy", ...WORD }, undefined, by());
    await other.agents.updateStatus(fourth.agentId, { status: "busy", ...WORD }, undefined, by());
    await other.agents.updateStatus(fifth.agentId, { status: RATE_LIMIT, ...WORD }, undefined, by());

    const cases: [Partial<typeof EVERY_AGENT>, Agent[]][] = [
      [{}, [first, second, third, fourth, fifth]],
      [{ clawIdentifiers: ["a", "c"] }, [first, third, fourth, fifth]],
      [{ statuses: ["busy"] }, [third, fourth]],
      [{ statuses: ["busy", "exhausted"], clawIdentifiers: ["a"] }, [third, fifth]],
      [{ agentIds: [first.agentId, second.agentId], userIds: [second.userId, third.userId] }, [second]],
      [{ agentIds: [first.agentId], clawIdentifiers: ["b"] }, []],
      [{ agentIds: Array.from({ length: 1_000 }, (_, index) => `${first.agentId}-${index}`) }, []],
    ];
    for (const [fields, expected] of cases) {
      const filter = { ...EVERY_AGENT, ...fields };
      const page = await other.agents.list(filter, { after: undefined, limit: 10 });
      expect(page.rows.map(({ id }) => id)).toEqual(expected.map(({ id }) => id));
      expect(page.next).toBeUndefined();
      const fleet = await other.agents.fleet(filter);
      const counted = [...fleet.statuses.values()].reduce((sum, count) => sum + count, 0n);
      expect(counted).toBe(BigInt(expected.length));
      expect(fleet.revision).toBe(page.revision);
    }
    const fleet = await other.agents.fleet(EVERY_AGENT);
    expect(fleet.statuses).toEqual(
      new Map([
        ["idle", 2n],
        ["busy", 2n],
        ["exhausted", 1n],
      ]),
    );
    expect(fleet.claws.get("a")?.statuses).toEqual(
      new Map([
        ["idle", 1n],
        ["busy", 1n],
        ["exhausted", 1n],
      ]),
    );
    expect([...fleet.claws.keys()].sort()).toEqual(["a", "b", "c"]);
    const { revision } = await other.agents.get({ agentId: fifth.agentId });
    expect(fleet.revision).toBe(revision);
  });

  test("page by id", async () => {
    await using other = await createTestStorage();
    const agents: Agent[] = [];
    for (let index = 0; index < 5; index++) agents.push(await createAgent({ target: other }));
    const first = await other.agents.list(EVERY_AGENT, { after: undefined, limit: 2 });
    const second = await other.agents.list(EVERY_AGENT, { after: first.next, limit: 2 });
    const third = await other.agents.list(EVERY_AGENT, { after: second.next, limit: 2 });
    expect([...first.rows, ...second.rows, ...third.rows]).toEqual(agents);
    expect([first.next, second.next, third.next]).toEqual([agents[1]?.id, agents[3]?.id, undefined]);
    expect(first.revision).toBe(agents[4]?.revision);
  });
});

describe("MoveAgent", () => {
  test("ends the session, keeps status and exhaustion, and grants a new first lease", async () => {
    const agent = await createAgent();
    await storage.agents.updateStatus(agent.agentId, { status: RATE_LIMIT, ...WORD }, undefined, by());
    await storage.query(
      "UPDATE agent_liveness SET held = true, lease_expires_at = clock_timestamp() WHERE agent = $1",
      [agent.id],
    );
    const before = await storage.agents.get({ agentId: agent.agentId });
    const moved = await storage.agents.move(agent.agentId, "claw-2", by());
    expect(moved).toMatchObject({ clawIdentifier: "claw-2", held: false, status: "exhausted", hold: before.hold });
    expect(moved.exhaustion).toEqual(before.exhaustion);
    expect(moved.epoch).toBeGreaterThan(before.epoch);
    expect(moved.revision).toBeGreaterThan(before.revision);
    expect(moved.leaseExpiresAt).toBeGreaterThan((before.leaseExpiresAt ?? 0) + (FIRST_LEASE_MS - 5_000) * 1_000);
    expect(moved.statusChangedAt).toBe(before.statusChangedAt);
    expect(await storage.agents.get({ agentId: agent.agentId })).toEqual(moved);
    expect(storage.leases.at(-1)).toEqual(moved);
    const [transition] = (await lastTransitions(agent.agentId)).rows;
    expect(transition).toMatchObject({ cause: "moved", fromClaw: "claw-1", toClaw: "claw-2", toStatus: "exhausted" });
  });

  test("grants no lease to an offline agent", async () => {
    const agent = await createAgent();
    await storage.agents.updateStatus(agent.agentId, { status: "offline", ...WORD }, undefined, by());
    const watched = storage.leases.length;
    const moved = await storage.agents.move(agent.agentId, "claw-2", by());
    expect(moved).toMatchObject({ status: "offline", leaseExpiresAt: null, clawIdentifier: "claw-2" });
    expect(storage.leases).toHaveLength(watched);
  });

  test("changes nothing when the agent is already at that claw", async () => {
    const agent = await createAgent();
    expect(await storage.agents.move(agent.agentId, "claw-1", by())).toEqual(agent);
    expect(await storage.agents.move(agent.agentId, "claw-1", by(`move-${agent.id}`))).toEqual(agent);
    await storage.agents.move(agent.agentId, "claw-2", by());
    // The repeated request changed nothing the first time, so it does not move the agent back.
    expect(await storage.agents.move(agent.agentId, "claw-1", by(`move-${agent.id}`))).toEqual(agent);
    expect((await storage.agents.get({ agentId: agent.agentId })).clawIdentifier).toBe("claw-2");
    await expect(storage.agents.move("nobody", "claw-1", by())).rejects.toMatchObject(
      refused("AGENT_NOT_FOUND", { agentId: "nobody" }),
    );
  });
});

describe("a status change by a service", () => {
  test("sets the status and takes precedence during its hold", async () => {
    const agent = await createAgent();
    const busy = await storage.agents.updateStatus(agent.agentId, { status: "busy", holdMs: 5_000 }, undefined, by());
    expect(busy).toMatchObject({ status: "busy", leaseExpiresAt: agent.leaseExpiresAt, epoch: agent.epoch });
    expect(busy.hold).toEqual({ revision: busy.revision, until: busy.statusChangedAt + 5_000_000 });
    expect(await storage.agents.get({ agentId: agent.agentId })).toEqual(busy);
    const idle = await storage.agents.updateStatus(agent.agentId, { status: "idle", holdMs: 0 }, undefined, by());
    expect(idle).toMatchObject({ status: "idle", hold: null });
  });

  test("to offline ends the lease, and the session keeps the agent", async () => {
    const agent = await createAgent();
    await storage.query("UPDATE agent_liveness SET held = true WHERE agent = $1", [agent.id]);
    const offline = await storage.agents.updateStatus(agent.agentId, { status: "offline", ...WORD }, undefined, by());
    expect(offline).toMatchObject({ status: "offline", leaseExpiresAt: null, held: true, epoch: agent.epoch });
    await expect(
      storage.agents.updateStatus(agent.agentId, { status: "busy", ...WORD }, undefined, by()),
    ).rejects.toMatchObject(refused("AGENT_OFFLINE"));
  });

  test("records an exhaustion, also of an offline agent", async () => {
    const agent = await createAgent();
    const exhausted = await storage.agents.updateStatus(
      agent.agentId,
      { status: RATE_LIMIT, ...WORD },
      undefined,
      by(),
    );
    const { exhaustion } = exhausted;
    expect(exhaustion).toEqual({
      reason: "rate_limit",
      exhaustedAt: exhausted.statusChangedAt,
      recoveryAt: exhausted.statusChangedAt + 60_000_000,
    });
    expect(exhausted.hold?.until).toBe(exhaustion?.recoveryAt);
    await expect(
      storage.agents.updateStatus(agent.agentId, { status: "on_call", ...WORD }, undefined, by()),
    ).rejects.toMatchObject(refused("AGENT_EXHAUSTED", { recoveryAt: toRfc3339(exhaustion?.recoveryAt ?? 0) }));
    const offline = await storage.agents.updateStatus(agent.agentId, { status: "offline", ...WORD }, undefined, by());
    expect(offline.exhaustion).toEqual(exhaustion);

    const billing = { exhausted: { reason: "billing", recoveryAt: (exhaustion?.recoveryAt ?? 0) + 1 } } as const;
    const recorded = await storage.agents.updateStatus(agent.agentId, { status: billing, ...WORD }, undefined, by());
    expect(recorded).toMatchObject({ status: "offline", leaseExpiresAt: null });
    expect(recorded.exhaustion).toEqual({
      reason: "billing",
      exhaustedAt: exhaustion?.exhaustedAt,
      recoveryAt: (exhaustion?.recoveryAt ?? 0) + 1,
    });
    const recovered = await storage.agents.updateStatus(agent.agentId, { status: "idle", ...WORD }, undefined, by());
    expect(recovered).toMatchObject({ status: "offline", exhaustion: null });
  });

  test("applies only to the expected revision", async () => {
    const agent = await createAgent();
    const claim = (revision: bigint) =>
      storage.agents.updateStatus(agent.agentId, { status: "on_call", ...WORD }, revision, by());
    const claimed = await claim(agent.revision);
    await expect(claim(agent.revision)).rejects.toMatchObject(
      refused("REVISION_MISMATCH", { revision: claimed.revision.toString() }),
    );
    expect(await claim(claimed.revision)).toEqual(claimed);
  });

  test("succeeds on one of two replicas that expect the same revision at once", async () => {
    await using other = openStorage(storage.url, 2);
    for (let round = 0; round < 5; round++) {
      const agent = await createAgent();
      const claims = await Promise.allSettled(
        [storage, other, storage, other].map((replica, index) =>
          replica.agents.updateStatus(
            agent.agentId,
            { status: index % 2 === 0 ? "busy" : "on_call", ...WORD },
            agent.revision,
            by(),
          ),
        ),
      );
      expect(claims.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
      for (const claim of claims) {
        if (claim.status === "rejected") expect(claim.reason).toMatchObject({ reason: "REVISION_MISMATCH" });
      }
    }
  });

  test("does not look like a lost race when it is repeated", async () => {
    const agent = await createAgent();
    const claim = () =>
      storage.agents.updateStatus(
        agent.agentId,
        { status: "busy", ...WORD },
        agent.revision,
        by(`claim-${agent.agentId}`),
      );
    const claimed = await claim();
    expect(await claim()).toEqual(claimed);
    await storage.agents.updateStatus(agent.agentId, { status: "idle", ...WORD }, undefined, by());
    expect(await claim()).toEqual(claimed);
    expect((await storage.agents.get({ agentId: agent.agentId })).status).toBe("idle");
    await storage.agents.delete(agent.agentId, by());
    expect(await claim()).toEqual(claimed);
  });

  test("is rejected for an unknown agent", async () => {
    await expect(
      storage.agents.updateStatus("nobody", { status: "busy", ...WORD }, undefined, by()),
    ).rejects.toMatchObject(refused("AGENT_NOT_FOUND", { agentId: "nobody" }));
  });
});

describe("DeleteAgent", () => {
  test("returns the revision of the last transition, also when it is repeated", async () => {
    const agent = await createAgent();
    const revision = await storage.agents.delete(agent.agentId, by(`delete-${agent.agentId}`));
    const [transition] = (await lastTransitions(agent.agentId)).rows;
    expect(transition).toMatchObject({ revision, cause: "deleted", toStatus: null, previousRevision: agent.revision });
    expect(await storage.agents.delete(agent.agentId, by(`delete-${agent.agentId}`))).toBe(revision);
    await expect(storage.agents.delete(agent.agentId, by())).rejects.toMatchObject(
      refused("AGENT_NOT_FOUND", { agentId: agent.agentId }),
    );
    expect((await storage.users.get({ id: agent.userId })).agentId).toBeNull();
  });

  test("frees the agent_id for another agent, and the repeated request does not delete that one", async () => {
    const agent = await createAgent();
    const revision = await storage.agents.delete(agent.agentId, by(`delete-${agent.agentId}`));
    const { userId, agentId, clawIdentifier } = agent;
    const again = await storage.agents.create({ userId, agentId, clawIdentifier }, by());
    expect(again.id).toBeGreaterThan(agent.id);
    expect(again.epoch).toBeGreaterThan(agent.epoch);
    expect(await storage.agents.delete(agentId, by(`delete-${agentId}`))).toBe(revision);
    expect(await storage.agents.get({ agentId })).toEqual(again);
  });
});

describe("a repeated request_id", () => {
  test("creates one agent, also on two replicas at once", async () => {
    await using other = openStorage(storage.url, 2);
    const userId = await createUser();
    const fields = { userId, agentId: `agent-${made}`, clawIdentifier: "claw-1" };
    const request = by(`create-${made}`);
    const answers = await Promise.all(
      [storage, other, storage, other].map((replica) => replica.agents.create(fields, request)),
    );
    for (const answer of answers) expect(answer).toEqual(answers[0]);
    await storage.agents.delete(fields.agentId, by());
    expect(await other.agents.create(fields, request)).toEqual(answers[0]);
  });

  test("is rejected with other content, also for another agent", async () => {
    const [one, other] = [await createAgent(), await createAgent()];
    const word = { status: "busy", ...WORD } as const;
    const settled = await Promise.allSettled([
      storage.agents.updateStatus(one.agentId, word, undefined, by(`shared-${one.id}`, "one")),
      storage.agents.updateStatus(other.agentId, word, undefined, by(`shared-${one.id}`, "other")),
    ]);
    expect(settled.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect(settled.find(({ status }) => status === "rejected")).toMatchObject({
      reason: refused("REQUEST_ID_REUSED", { requestId: `shared-${one.id}` }),
    });
    const statuses = (await storage.agents.getAll([one.agentId, other.agentId])).map(({ status }) => status);
    expect(statuses.sort()).toEqual(["busy", "idle"]);
  });
});

describe("a database failure", () => {
  test("is reported as UNAVAILABLE soon when connections are refused", async () => {
    await using away = openStorage("postgres://nobody@127.0.0.1:1/nothing");
    const unavailable = { ...refused("DATABASE_UNAVAILABLE"), retryAfterMs: 1_000 };
    await expect(away.agents.get({ agentId: "any" })).rejects.toMatchObject(unavailable);
    await expect(away.users.list({ after: undefined, limit: 1 })).rejects.toMatchObject(unavailable);
    await expect(away.agents.fleet(EVERY_AGENT)).rejects.toMatchObject(unavailable);
  });

  test("is retried when open connections are cut off", async () => {
    const agent = await createAgent();
    await using killer = openStorage(storage.url, 2);
    for (let round = 0; round < 3; round++) {
      await killer.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
      );
      expect(await storage.agents.get({ agentId: agent.agentId })).toEqual(agent);
      expect((await storage.users.update(agent.userId, { displayName: `${round}` }, by())).displayName).toBe(
        `${round}`,
      );
      expect((await storage.agents.move(agent.agentId, `claw-${round}`, by())).clawIdentifier).toBe(`claw-${round}`);
      await storage.agents.move(agent.agentId, "claw-1", by());
      Object.assign(agent, await storage.agents.get({ agentId: agent.agentId }));
    }
  });
});

function lastTransitions(agentId: string) {
  return storage.agents.transitions({
    agentId,
    afterRevision: 0n,
    newestFirst: true,
    after: undefined,
    upTo: undefined,
    limit: 10,
  });
}
