import { afterEach, describe, expect, test, vi } from "vitest";
import { createTestDatabase } from "../support/cluster.ts";
import { databaseNow } from "../support/fleet-scene.ts";
import { openReplica, type Replica, type ReplicaOptions, storyOf } from "../support/replica.ts";
import { alive, reports } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

const MS = 1_000;

/** A lease that expires later was found by the scan of all leases, which runs each 30 s. */
const PROMPT_MS = 15_000;

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

/** Replicas of one database, which ends with the test. */
async function replicas(...options: ReplicaOptions[]): Promise<[Replica, ...Replica[]]> {
  const { url } = undo.use(await createTestDatabase());
  const [first, ...others] = await Promise.all(options.map((option) => openReplica(url, option)));
  if (first === undefined) throw new TypeError("at least one replica");
  for (const replica of [first, ...others]) undo.use(replica);
  return [first, ...others];
}

async function leaseEnd(replica: Replica, agentId: string): Promise<number> {
  const { leaseExpiresAt } = await replica.agents.get({ agentId });
  if (leaseExpiresAt === null) throw new TypeError(`${agentId} has no lease`);
  return leaseExpiresAt;
}

/** The milliseconds between the end of each agent's lease and its offline transition. */
async function lateness(replica: Replica, leases: ReadonlyMap<string, number>, withinMs = 20_000): Promise<number[]> {
  return await Promise.all(
    [...leases].map(async ([agentId, end]) => {
      const expired = await until(
        `${agentId} is offline`,
        async () => (await replica.history(agentId)).find(({ cause }) => cause === "lease_expired"),
        withinMs,
      );
      return (expired.occurredAt - end) / MS;
    }),
  );
}

/** Never early, and found by the wheel. */
function expectPrompt(late: readonly number[]): void {
  expect(Math.min(...late)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...late)).toBeLessThan(PROMPT_MS);
}

describe("a lease", () => {
  test("starts with the creation of the agent, and expires without a beat", async () => {
    const [replica] = await replicas({ firstLeaseMs: 300 });
    const leases = new Map<string, number>();
    for (let n = 0; n < 10; n++) {
      const before = await databaseNow(replica);
      const created = await replica.createAgent(`never beats ${n}`);
      expect(created).toMatchObject({ status: "idle", lastHeartbeat: null, held: false });
      expect(created.leaseExpiresAt).toBeGreaterThanOrEqual(before + 300 * MS);
      expect(created.leaseExpiresAt).toBeLessThanOrEqual((await databaseNow(replica)) + 300 * MS);
      leases.set(created.agentId, await leaseEnd(replica, created.agentId));
    }
    expectPrompt(await lateness(replica, leases));
    const [gone] = await replica.history("never beats 0").then((rows) => rows.slice(1));
    expect(gone).toMatchObject({ cause: "lease_expired", actor: "server", toStatus: "offline", exhaustion: null });
  });

  test("lasts three intervals from the beat that renewed it, and expires within 250 ms, never early", async () => {
    const [replica] = await replicas({ intervalMs: 150 });
    const agentIds = await replica.seedAgents(100, "silent-");
    const stream = replica.stream();
    const leases = new Map<string, number>();
    for (let from = 0; from < agentIds.length; from += 10) {
      const some = agentIds.slice(from, from + 10);
      await stream.say(...some.map((agentId) => (from % 20 === 0 ? alive(agentId) : reports(agentId, "busy"))));
      for (const agentId of some) {
        const agent = await replica.agents.get({ agentId });
        // The row reads the clock twice.
        const leaseMs = ((agent.leaseExpiresAt ?? 0) - (agent.lastHeartbeat ?? 0)) / MS;
        expect(leaseMs).toBeGreaterThanOrEqual(450);
        expect(leaseMs).toBeLessThan(2 * 450);
        leases.set(agentId, agent.leaseExpiresAt ?? 0);
      }
    }
    // An open stream alone does not extend it.
    expectPrompt(await lateness(replica, leases));
    expect(await replica.agents.get({ agentId: "silent-1" })).toMatchObject({ held: false, leaseExpiresAt: null });
    expect(await stream.say(alive("silent-1"))).toMatchObject([{ status: "idle", refusal: null }]);
  });

  test("does not expire while beats renew it", async () => {
    const [replica] = await replicas({ intervalMs: 200 });
    await replica.createAgent("lively");
    using stream = replica.stream();
    await stream.say(alive("lively"));
    const first = await leaseEnd(replica, "lively");
    await until("two more leases have passed", async () => {
      await stream.say(alive("lively"));
      return (await leaseEnd(replica, "lively")) > first + 2 * 600 * MS;
    });
    expect(await storyOf(replica, "lively")).toEqual([]);
  });

  test("continues when the stream ends", async () => {
    const [one, other] = await replicas({ intervalMs: 200 }, { intervalMs: 200 });
    const leases = new Map<string, number>();
    for (const [n, at] of [one, other ?? one].entries()) {
      const agentId = `cut off ${n}`;
      await one.createAgent(agentId);
      const stream = at.stream();
      await stream.say(reports(agentId, "busy"));
      leases.set(agentId, await leaseEnd(one, agentId));
      stream.close();
    }
    expectPrompt(await lateness(one, leases));
    expect(await storyOf(one, "cut off 1")).toEqual(["report: busy", "lease_expired: offline"]);
  });

  test("of a unary heartbeat is as long as requested, also when the beat brings the agent back", async () => {
    const [one, other] = await replicas({}, {});
    await one.createAgent("cron");
    const beat = (at: Replica, leaseMs: number) =>
      at.liveness.beat([alive("cron")], { clawIdentifier: undefined, leaseMs });
    await beat(one, 60_000);
    expect(
      ((await leaseEnd(one, "cron")) - (await one.agents.get({ agentId: "cron" })).createdAt) / MS,
    ).toBeGreaterThan(59_000);
    // At a replica that does not otherwise watch it.
    await beat(other ?? one, 200);
    await one.watchLease("cron");
    await one.untilStatus("cron", "offline");
    await beat(other ?? one, 200);
    const end = await leaseEnd(one, "cron");
    await until("it is offline again", async () => (await one.history("cron")).at(-1)?.cause === "lease_expired");
    expect(((await one.history("cron")).at(-1)?.occurredAt ?? 0) - end).toBeGreaterThanOrEqual(0);
    expect(await storyOf(one, "cron")).toEqual(["lease_expired: offline", "heartbeat: idle", "lease_expired: offline"]);
  });

  test("ends by a status change of a service, and a beat grants a new one", async () => {
    const [replica] = await replicas({});
    await replica.createAgent("sent away");
    using stream = replica.stream();
    await stream.say(alive("sent away"));
    await replica.agents.updateStatus("sent away", { status: "offline", holdMs: undefined }, undefined, replica.by);
    expect(await replica.agents.get({ agentId: "sent away" })).toMatchObject({
      leaseExpiresAt: null,
      status: "offline",
    });
    expect((await stream.say(alive("sent away"))).at(-1)).toMatchObject({ status: "idle", refusal: null });
    expect(await leaseEnd(replica, "sent away")).toBeGreaterThan(0);
  });

  test("restarts with a move, and is watched", async () => {
    const [one, other] = await replicas({ firstLeaseMs: 300 }, { firstLeaseMs: 300 });
    await one.createAgent("moves");
    await other?.agents.move("moves", "claw-2", one.by);
    const end = await leaseEnd(one, "moves");
    expectPrompt(await lateness(one, new Map([["moves", end]])));
  });

  test("follows the clock of the database, however wrong the clock of the machine is", async () => {
    const { url } = undo.use(await createTestDatabase());
    for (const [name, hours] of [
      ["ahead", 1],
      ["behind", -1],
    ] as const) {
      const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + hours * 3_600_000);
      const opening = openReplica(url, { intervalMs: 100 });
      clock.mockRestore();
      await using replica = await opening;
      await replica.createAgent(name);
      using stream = replica.stream();
      await stream.say(alive(name));
      expectPrompt(await lateness(replica, new Map([[name, await leaseEnd(replica, name)]])));
    }
  });
});

describe("the agents of a failed replica", () => {
  async function silence(replica: Replica, by: Replica): Promise<void> {
    await by.query("UPDATE replicas SET seen_at = seen_at - interval '1 minute' WHERE id = $1", replica.number);
  }

  /**
   * Waits until another replica watches its agents. @returns the time before which none of their leases ends
   */
  async function adopted(gone: Replica, by: Replica): Promise<number> {
    return await until("it is adopted", async () => {
      const [row] = await by.query<{ until: number | null }>(
        "SELECT no_lease_ends_before AS until FROM replicas WHERE id = $1 AND adopted_by = $2",
        gone.number,
        by.number,
      );
      return row?.until ?? undefined;
    });
  }

  test("are adopted by a live replica, which expires their leases after a grace period", async () => {
    const [living, dead = living] = await replicas({ intervalMs: 800 }, { intervalMs: 800, started: false });
    const agentIds = await living.seedAgents(20, "orphan-");
    const stream = dead.stream();
    await stream.say(...agentIds.map(alive));
    const leases = new Map<string, number>();
    await silence(dead, living);
    const noneBefore = await adopted(dead, living);
    for (const agentId of agentIds) leases.set(agentId, Math.max(noneBefore, await leaseEnd(living, agentId)));
    expectPrompt(await lateness(living, leases));
    await until("the row of the dead is gone", async () => {
      const rows = await living.query("SELECT FROM replicas WHERE id = $1", dead.number);
      return rows.length === 0;
    });
  });

  test("continue with a session that is still alive", async () => {
    const [living, silent = living] = await replicas({}, { started: false });
    await living.createAgent("thought dead");
    using stream = silent.stream();
    await stream.say(alive("thought dead"));
    const { epoch } = await living.agents.get({ agentId: "thought dead" });
    await silence(silent, living);
    await adopted(silent, living);
    expect(await stream.say(alive("thought dead"))).toEqual([]);
    expect(await stream.say(reports("thought dead", "busy"))).toMatchObject([{ status: "busy", refusal: null }]);
    expect(await living.agents.get({ agentId: "thought dead" })).toMatchObject({ epoch, held: true });
  });

  test("are adopted in pages, also when their leases ended long ago", async () => {
    const [living, dead = living] = await replicas({ intervalMs: 100 }, { intervalMs: 100, started: false });
    const agentIds = await living.seedAgents(2_500, "many-", -60_000);
    await living.query("UPDATE agent_liveness SET replica_id = $1", dead.number);
    await silence(dead, living);
    await until("all are offline", async () => {
      const [row] = await living.query<{ gone: bigint }>(
        "SELECT count(*) AS gone FROM agent_transitions WHERE cause = 'lease_expired'",
      );
      return row?.gone === BigInt(agentIds.length);
    });
    const { statuses } = await living.agents.fleet({ agentIds: [], userIds: [], clawIdentifiers: [], statuses: [] });
    expect(statuses.get("offline")).toBe(2_500n);
  });

  test("are adopted at once after an orderly stop, and keep their leases", async () => {
    const { url } = undo.use(await createTestDatabase());
    const living = undo.use(await openReplica(url));
    const leaving = await openReplica(url);
    await living.createAgent("moves house");
    const stream = leaving.stream();
    await stream.say(reports("moves house", "busy"));
    const before = await living.agents.get({ agentId: "moves house" });
    await leaving[Symbol.asyncDispose]();
    await adopted(leaving, living);
    const after = await living.agents.get({ agentId: "moves house" });
    expect(after).toMatchObject({ status: "busy", held: false, leaseExpiresAt: before.leaseExpiresAt });
  });
});

test("a lease without a watching replica is found by the scan of all leases", async () => {
  const { url } = undo.use(await createTestDatabase());
  const quiet = undo.use(await openReplica(url, { started: false }));
  await quiet.seedAgents(3, "unwatched-", -5_000);
  await quiet.seedAgents(1, "in time-", 60_000);
  // A replica without a row.
  await quiet.query(
    "UPDATE agent_liveness SET replica_id = 999999 WHERE agent = (SELECT min(agent) FROM agent_liveness)",
  );
  const sweeper = undo.use(await openReplica(url));
  for (const n of [1, 2, 3]) await sweeper.untilStatus(`unwatched-${n}`, "offline");
  expect(await storyOf(quiet, "in time-1")).toEqual([]);
});
