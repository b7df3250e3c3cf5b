import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Agent } from "../../src/domain/agent.ts";
import type { AgentUpdate } from "../../src/storage/agent-change.ts";
import { KEEP_LEASE } from "../../src/storage/agent-change.ts";
import type { Change } from "../../src/storage/committer.ts";
import { by, createTestStorage, openStorage, refused, type Storage } from "../support/storage.ts";

let storage: Awaited<ReturnType<typeof createTestStorage>>;
let other: Storage;
beforeAll(async () => {
  storage = await createTestStorage();
  other = openStorage(storage.url, 2);
});
afterAll(async () => {
  await other[Symbol.asyncDispose]();
  await storage[Symbol.asyncDispose]();
});

let made = 0;

function createAgent(target: Pick<Storage, "users"> = storage): Promise<Agent> {
  const name = `committed-${++made}`;
  const user = { username: name, email: null, displayName: "", agent: { agentId: name, clawIdentifier: "claw-0" } };
  return target.users.create(user, by()).then(({ agent }) => {
    if (agent === undefined) throw new Error("an agent was asked for");
    return agent;
  });
}

/** A move that names the judgement it comes from. */
function moveTo(agentId: string, clawIdentifier: string, more: Partial<Change<Agent>> = {}): Change<Agent> {
  return {
    agentId,
    actor: "server",
    judge(agent) {
      if (agent === undefined) throw new Error("there is no such agent");
      return { kind: "write", write: movedTo(agent, clawIdentifier), result: (committed) => committed.agent };
    },
    ...more,
  };
}

function movedTo(agent: Agent, clawIdentifier: string): AgentUpdate {
  return { kind: "update", agent, cause: "moved", clawIdentifier, lease: KEEP_LEASE };
}

/** The claws of an agent in the order of the log, and whether each transition follows the one before it. */
async function historyOf(agentId: string) {
  const { rows } = await storage.agents.transitions({
    agentId,
    afterRevision: 0n,
    newestFirst: false,
    after: undefined,
    upTo: undefined,
    limit: 1_000,
  });
  for (const [index, { previousRevision, fromClaw }] of rows.entries()) {
    expect(previousRevision).toBe(rows[index - 1]?.revision ?? null);
    expect(fromClaw).toBe(rows[index - 1]?.toClaw ?? null);
  }
  return rows.map(({ toClaw }) => toClaw);
}

describe("a group of changes", () => {
  test("commits changes of many agents in one transaction", async () => {
    const agents = await Promise.all(Array.from({ length: 50 }, () => createAgent()));
    const before = storage.commits.length;
    const moved = await Promise.all(agents.map(({ agentId }) => storage.committer.submit(moveTo(agentId, "claw-1"))));
    expect(storage.commits.length - before).toBe(1);
    const revisions = moved.map(({ revision }) => revision);
    expect(new Set(revisions).size).toBe(50);
    const { rows } = await storage.agents.transitions({
      agentId: undefined,
      afterRevision: (revisions[0] ?? 0n) - 1n,
      newestFirst: false,
      after: undefined,
      upTo: undefined,
      limit: 50,
    });
    expect(rows.map(({ revision }) => revision)).toEqual(revisions);
    expect(new Set(rows.map(({ occurredAt }) => occurredAt)).size).toBe(1);
  });

  test("keeps the order of changes of one agent, each with its own revision", async () => {
    const { agentId } = await createAgent();
    const claws = Array.from({ length: 20 }, (_, index) => `claw-${index + 1}`);
    const moved = await Promise.all(claws.map((claw) => storage.committer.submit(moveTo(agentId, claw))));
    expect(await historyOf(agentId)).toEqual(["claw-0", ...claws]);
    const revisions = moved.map(({ revision }) => revision);
    expect([...revisions].sort((a, b) => Number(a - b))).toEqual(revisions);
  });

  test("drops a member that conflicts, and commits the rest", async () => {
    const taken = await createAgent();
    const [before, after] = [await createAgent(), await createAgent()];
    const user = { username: `late-${++made}`, email: null, displayName: "" };
    const create = { kind: "create", agentId: `late-${made}`, clawIdentifier: "claw-1", firstLeaseMs: 1_000 } as const;
    const settled = await Promise.allSettled([
      storage.committer.submit(moveTo(before.agentId, "claw-1")),
      storage.committer.submit<Agent>({
        agentId: create.agentId,
        actor: "server",
        judge: () => ({
          kind: "write",
          write: { ...create, user: { id: taken.userId } },
          result: ({ agent }) => agent,
        }),
      }),
      storage.committer.submit<Agent>({
        agentId: `${create.agentId}-fits`,
        actor: "server",
        judge: () => ({
          kind: "write",
          write: { ...create, agentId: `${create.agentId}-fits`, user },
          result: ({ agent }) => agent,
        }),
      }),
      storage.committer.submit(moveTo(after.agentId, "claw-1")),
    ]);
    expect(settled.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled", "fulfilled"]);
    expect(settled[1]).toMatchObject({ reason: refused("USER_HAS_AGENT", { userId: taken.userId.toString() }) });
    for (const { agentId } of [before, after]) expect(await historyOf(agentId)).toEqual(["claw-0", "claw-1"]);
    expect(await historyOf(create.agentId)).toEqual([]);
  });

  test("drops a member that violates a database constraint, and commits the rest", async () => {
    const agents = await Promise.all(Array.from({ length: 9 }, () => createAgent()));
    const settled = await Promise.allSettled(
      agents.map(({ agentId }, index) =>
        storage.committer.submit(moveTo(agentId, index === 4 ? "x".repeat(129) : "claw-1")),
      ),
    );
    expect(settled.map(({ status }) => status)).toEqual(
      agents.map((_, index) => (index === 4 ? "rejected" : "fulfilled")),
    );
    expect(settled[4]).toMatchObject({ reason: { constraint: "agents_claw_identifier_length" } });
    for (const [index, { agentId }] of agents.entries()) {
      expect(await historyOf(agentId)).toEqual(index === 4 ? ["claw-0"] : ["claw-0", "claw-1"]);
    }
  });

  test("drops a member whose judge rejects, and one whose result cannot be built", async () => {
    const [agent, neighbour] = [await createAgent(), await createAgent()];
    const settled = await Promise.allSettled([
      storage.committer.submit<Agent>({
        agentId: "nobody",
        actor: "server",
        judge: () => {
          throw new Error("refused");
        },
      }),
      storage.committer.submit<Agent>({
        agentId: agent.agentId,
        actor: "server",
        judge: () => ({
          kind: "write",
          write: movedTo(agent, "claw-1"),
          result: () => {
            throw new Error("no result");
          },
        }),
      }),
      storage.committer.submit(moveTo(neighbour.agentId, "claw-1")),
    ]);
    expect(settled.map(({ status }) => status)).toEqual(["rejected", "rejected", "fulfilled"]);
    expect(settled[0]).toMatchObject({ reason: { message: "refused" } });
    expect(settled[1]).toMatchObject({ reason: { message: "no result" } });
    expect(await historyOf(agent.agentId)).toEqual(["claw-0", "claw-1"]);
  });
});

describe("a change", () => {
  test("is judged again when it was judged by an outdated agent", async () => {
    const agent = await createAgent();
    await other.agents.move(agent.agentId, "claw-1", by());
    const judged: string[] = [];
    const moved = await storage.committer.submit({
      ...moveTo(agent.agentId, "claw-2"),
      known: agent,
      judge(now) {
        judged.push(now?.clawIdentifier ?? "nobody");
        return { kind: "write", write: movedTo(now ?? agent, "claw-2"), result: (committed) => committed.agent };
      },
    });
    expect(judged).toEqual(["claw-0", "claw-1"]);
    expect(moved.clawIdentifier).toBe("claw-2");
    expect(await historyOf(agent.agentId)).toEqual(["claw-0", "claw-1", "claw-2"]);
  });

  test("is fenced by the epoch of its session", async () => {
    const agent = await createAgent();
    await storage.query("UPDATE agent_liveness SET epoch = nextval('agent_epochs') WHERE agent = $1", [agent.id]);
    const epochs: bigint[] = [];
    const done = await storage.committer.submit<string>({
      agentId: agent.agentId,
      known: agent,
      actor: "server",
      judge(now) {
        epochs.push(now?.epoch ?? 0n);
        if (now === undefined || now.epoch !== agent.epoch) return { kind: "done", result: "superseded" };
        return { kind: "write", write: { ...movedTo(now, "claw-1"), fenceEpoch: true }, result: () => "moved" };
      },
    });
    expect(done).toBe("superseded");
    expect(epochs).toHaveLength(2);
    expect(epochs[1]).toBeGreaterThan(agent.epoch);
  });

  test("waits for an instant of the database's clock", async () => {
    const agent = await createAgent();
    // No lease expires without a replica that is not isolated.
    await storage.query("INSERT INTO replicas (deaf_after_ms) VALUES (60000)");
    await storage.query("UPDATE agent_liveness SET lease_expires_at = clock_timestamp() + interval '200 ms'");
    let ended = 0;
    const [before] = await storage.query<{ lease_expires_at: number }>(
      "SELECT lease_expires_at FROM agent_liveness WHERE agent = $1",
      [agent.id],
    );
    const { statusChangedAt } = await storage.committer.submit<Agent>({
      agentId: agent.agentId,
      actor: "server",
      judge(now) {
        ended++;
        const write: AgentUpdate = {
          kind: "update",
          agent: now ?? agent,
          cause: "lease_expired",
          status: {
            kind: "change",
            status: "offline",
            cause: "lease_expired",
            exhaustion: { kind: "keep" },
            hold: { kind: "clear" },
            forgetBackoff: false,
            notBefore: null,
          },
          lease: { kind: "end" },
          leaseEnded: true,
        };
        return { kind: "write", write, result: (committed) => committed.agent };
      },
    });
    expect(ended).toBeGreaterThan(1);
    expect(statusChangedAt).toBeGreaterThanOrEqual(before?.lease_expires_at ?? Number.POSITIVE_INFINITY);
  });

  test("by the row number of an agent does not apply to another agent with the same agent_id", async () => {
    const agent = await createAgent();
    await storage.agents.delete(agent.agentId, by());
    const { userId, agentId, clawIdentifier } = agent;
    await storage.agents.create({ userId, agentId, clawIdentifier }, by());
    const found = await storage.committer.submit<bigint | undefined>({
      agentId,
      id: agent.id,
      actor: "server",
      judge: (now) => ({ kind: "done", result: now?.id }),
    });
    expect(found).toBeUndefined();
  });

  test("of a deleted agent reports the last state of the agent", async () => {
    const agent = await createAgent();
    const deleted = await storage.committer.submit<Agent>({
      agentId: agent.agentId,
      actor: "server",
      judge: () => ({
        kind: "write",
        write: { kind: "delete", agent, cause: "deleted", lease: KEEP_LEASE },
        result: (committed) => committed.agent,
      }),
    });
    expect(deleted).toEqual({ ...agent, revision: deleted.revision });
    expect(deleted.revision).toBeGreaterThan(agent.revision);
  });

  test("that can never apply ends at its deadline", async () => {
    const agent = await createAgent();
    const never: Change<never> = {
      agentId: agent.agentId,
      actor: "server",
      deadline: performance.now() + 100,
      judge: () => ({
        kind: "write",
        write: { ...movedTo({ ...agent, revision: agent.revision - 1n }, "claw-1") },
        result: () => {
          throw new Error("applied");
        },
      }),
    };
    await expect(storage.committer.submit(never)).rejects.toMatchObject(refused("DATABASE_UNAVAILABLE"));
  });

  test.each([
    true,
    false,
  ])("whose connection breaks during the commit reports that, if it has no request_id: %s", async (known) => {
    const { agentId } = await createAgent();
    await using blocker = openStorage(storage.url, 3);
    const held = await blocker.database.feed.connect();
    await held.query("BEGIN");
    await held.query("SELECT FROM revision_counter FOR UPDATE");
    try {
      const move = storage.agents.move(agentId, "claw-1", known ? by(`in-doubt-${agentId}`) : by());
      const settled = move.then(
        (agent) => agent.clawIdentifier,
        (error: unknown) => error,
      );
      await expect
        .poll(() =>
          other.query(
            `SELECT pg_terminate_backend(pid) AS gone FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name LIKE '% commits'`,
          ),
        )
        .toEqual([{ gone: true }]);
      await held.query("COMMIT");
      const outcome = await settled;
      if (known) expect(outcome).toBe("claw-1");
      else {
        expect(outcome).toMatchObject({
          reason: "DATABASE_UNAVAILABLE",
          message: expect.stringContaining("may or may not have taken effect"),
        });
      }
    } finally {
      held.release(true);
    }
  });

  test("is applied once when its connection breaks", async () => {
    const agents = await Promise.all(Array.from({ length: 20 }, () => createAgent()));
    let done = false;
    const changes = Promise.all(
      agents.map(async ({ agentId }, index) => {
        for (let step = 1; step <= 5; step++) {
          await storage.agents.move(agentId, `claw-${step}`, by(`cut-${index}-${agentId}-${step}`));
        }
      }),
    ).finally(() => {
      done = true;
    });
    for (let cut = 0; cut < 15 && !done; cut++) {
      await other.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '% commits'",
      );
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    await changes;
    for (const { agentId } of agents) {
      expect(await historyOf(agentId)).toEqual(Array.from({ length: 6 }, (_, step) => `claw-${step}`));
    }
  });
});

describe("two replicas", () => {
  test("assign revisions in the order of their commits, none twice", async () => {
    const agents = await Promise.all(Array.from({ length: 40 }, () => createAgent()));
    const [counter] = await storage.query<{ revision: bigint }>("SELECT revision FROM revision_counter");
    const start = counter?.revision ?? 0n;

    let done = false;
    const seen: bigint[] = [];
    // A reader that continues from the last revision it read, as watchers do: later commits have higher
    // revisions.
    const reader = (async () => {
      let last = start;
      for (;;) {
        const finished = done;
        const rows = await storage.query<{ revision: bigint }>(
          "SELECT revision FROM agent_transitions WHERE revision > $1 ORDER BY revision",
          [last],
        );
        for (const { revision } of rows) seen.push(revision);
        last = seen.at(-1) ?? last;
        if (finished) return;
      }
    })();
    await Promise.all(
      agents.flatMap(({ agentId }, index) => [
        moveOften(storage, agentId, `a${index}`),
        moveOften(other, agentId, `b${index}`),
      ]),
    );
    done = true;
    await reader;

    const rows = await storage.query<{ revision: bigint; occurred_at: number }>(
      "SELECT revision, occurred_at FROM agent_transitions WHERE revision > $1 ORDER BY revision",
      [start],
    );
    expect(rows).toHaveLength(40 * 2 * 5);
    expect(seen).toEqual(rows.map(({ revision }) => revision));
    expect(rows.map(({ revision }) => revision)).toEqual(rows.map((_, index) => start + BigInt(index) + 1n));
    const times = rows.map(({ occurred_at: time }) => time);
    expect([...times].sort((a, b) => a - b)).toEqual(times);
    for (const { agentId } of agents) expect(await historyOf(agentId)).toHaveLength(11);
  });

  test("make one change when they get one request at once", async () => {
    const agents = await Promise.all(Array.from({ length: 10 }, () => createAgent()));
    await Promise.all(
      agents.map(async ({ agentId }) => {
        const answers = await Promise.all(
          [storage, other, storage, other].map((replica) => replica.agents.move(agentId, "claw-1", by(`m-${agentId}`))),
        );
        for (const answer of answers) expect(answer).toEqual(answers[0]);
        expect(await historyOf(agentId)).toEqual(["claw-0", "claw-1"]);
      }),
    );
  });
});

async function moveOften(replica: Storage, agentId: string, name: string): Promise<void> {
  for (let step = 0; step < 5; step++) await replica.committer.submit(moveTo(agentId, `${name}-${step}`));
}

/** As if the server had restarted since. */
const BREAK_HISTORY = "UPDATE revision_history SET server_started_at = '-infinity', written_by = pg_current_xact_id()";

describe("revisions", () => {
  test.each([
    ["another start of the server, or another server", "server_started_at = '-infinity'", "server_started"],
    ["another database of the server", "database_oid = 1", "another_database"],
    ["a database that was altered, also by renaming", "database_written_by = '3'", "database_altered"],
    ["a row that another transaction wrote", "written_by = '3'", "row_copied"],
    ["nothing is known of it", "database_oid = NULL", "unknown"],
  ])("skip every revision that a lost history can have assigned: %s", async (_, change, reason) => {
    await using restored = await createTestStorage();
    const agent = await createAgent(restored);
    await restored.query(
      `UPDATE revision_history SET ${change.startsWith("written_by") ? "" : "written_by = pg_current_xact_id(),"} ${change}`,
    );
    const startedAt = BigInt(Date.now()) * 1_024n;
    const moved = await restored.agents.move(agent.agentId, "claw-1", by());
    // A second of tolerance: the clocks of database and test process may differ.
    expect(moved.revision).toBeGreaterThan(startedAt - 1_024_000n);
    expect(moved.revision).toBeGreaterThan(agent.revision + 1n);
    expect(await restored.query("SELECT from_revision, to_revision, reason FROM revision_jumps")).toEqual([
      { from_revision: agent.revision, to_revision: moved.revision - 1n, reason },
    ]);
    const again = await restored.agents.move(agent.agentId, "claw-2", by());
    expect(again.revision).toBe(moved.revision + 1n);
    expect(await restored.query("SELECT FROM revision_jumps")).toHaveLength(1);
  });

  test("that are ahead of the clock already still skip a gap, of another length each time", async () => {
    await using restored = await createTestStorage();
    const ahead = (BigInt(Date.now()) + 86_400_000n) * 1_024n;
    const agent = await createAgent(restored);
    await restored.query(
      "UPDATE revision_counter SET revision = $1, partitioned_until = add_transition_partitions($1)",
      [ahead],
    );
    const distances: bigint[] = [];
    for (let last = ahead, n = 1; n <= 4; n += 1) {
      await restored.query(BREAK_HISTORY);
      const { revision } = await restored.agents.move(agent.agentId, `claw-${n}`, by());
      distances.push(revision - last);
      last = revision;
    }
    expect(distances.filter((distance) => distance <= 1n || distance > 1n + 2n ** 36n)).toEqual([]);
    expect(new Set(distances).size).toBe(4);
  });

  test("continue from one partition of the log to the next, also within a group", async () => {
    await using rolling = await createTestStorage();
    const agents = await Promise.all(Array.from({ length: 6 }, () => createAgent(rolling)));
    const [counter] = await rolling.query<{ revision: bigint; partitioned_until: bigint }>(
      "SELECT revision, partitioned_until FROM revision_counter",
    );
    // Two rolls: into the last existing partition, and beyond the end of it.
    let end = ((counter?.revision ?? 0n) / 1_000_000n + 1n) * 1_000_000n;
    for (let roll = 0; roll < 4; roll++, end += 1_000_000n) {
      await rolling.query("UPDATE revision_counter SET revision = $1", [end - 4n]);
      const moved = await Promise.all(
        agents.map(({ agentId }) => rolling.committer.submit(moveTo(agentId, `claw-of-roll-${roll}`))),
      );
      expect(moved.map(({ revision }) => revision)).toEqual(agents.map((_, index) => end - 3n + BigInt(index)));
    }
    const [after] = await rolling.query<{ revision: bigint; partitioned_until: bigint }>(
      "SELECT revision, partitioned_until FROM revision_counter",
    );
    expect(after?.partitioned_until).toBeGreaterThan(counter?.partitioned_until ?? 0n);
    expect((after?.partitioned_until ?? 0n) - (after?.revision ?? 0n)).toBeGreaterThan(1_000_000n);
  });

  test("that jump to the very end of a partition have a partition for the next one", async () => {
    await using restored = await createTestStorage();
    const agents = await Promise.all(Array.from({ length: 6 }, () => createAgent(restored)));
    // Ahead of the clock, with a jump of zero: it goes to the next revision, three before the end of a
    // partition.
    await restored.query("CREATE OR REPLACE FUNCTION random_revision_distance() RETURNS bigint LANGUAGE sql RETURN 1");
    const end = ((BigInt(Date.now()) * 1_024n) / 1_000_000n + 1_000_000n) * 1_000_000n;
    await restored.query("UPDATE revision_counter SET revision = $1", [end - 5n]);
    await restored.query(BREAK_HISTORY);
    const moved = await Promise.all(agents.map(({ agentId }) => restored.committer.submit(moveTo(agentId, "claw-1"))));
    expect(moved.map(({ revision }) => revision)).toEqual(agents.map((_, index) => end - 3n + BigInt(index)));
  });
});

test("a closed committer settles its pending changes and accepts no new ones", async () => {
  const closing = openStorage(storage.url, 3);
  const { agentId } = await createAgent();
  const moves = ["claw-1", "claw-2", "claw-3"].map((claw) => closing.committer.submit(moveTo(agentId, claw)));
  const closed = closing.committer.close();
  await expect(closing.committer.submit(moveTo(agentId, "claw-4"))).rejects.toMatchObject(
    refused("DATABASE_UNAVAILABLE"),
  );
  await closed;
  expect((await Promise.all(moves)).map(({ clawIdentifier }) => clawIdentifier)).toEqual([
    "claw-1",
    "claw-2",
    "claw-3",
  ]);
  await closing[Symbol.asyncDispose]();
});
