import { describe, expect, test } from "vitest";
import { recoveryDelayMs } from "../../src/domain/recovery-spread.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { databaseNow } from "../support/fleet-scene.ts";
import { openReplica, type Replica } from "../support/replica.ts";
import { alive, reports } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

/** Detects a hang. */
const WITHIN_MS = 60_000;

describe("recoveries of very many agents that are due at once", () => {
  interface Delay {
    readonly agentId: string;
    /** From `recovery_at` to the recovery. */
    readonly ms: number;
  }

  async function delays(replica: Replica, count: number): Promise<Delay[]> {
    return await until(
      `${count} recovered`,
      async () => {
        const rows = await replica.query<Delay>(
          `SELECT agent_id AS "agentId", extract(epoch FROM t.occurred_at - b.recovery_at)::float8 * 1000 AS ms
           FROM agent_transitions t JOIN exhausted_before b USING (agent_id) WHERE t.cause = 'recovery'`,
        );
        return rows.length === count && rows;
      },
      WITHIN_MS,
    );
  }

  test("are spread: 1 000 agents over five seconds", async () => {
    await using database = await createTestDatabase();
    await using quiet = await openReplica(database.url, { started: false });
    await quiet.seedAgents(1_000, "provider-");
    await quiet.query(
      `UPDATE agents SET status = 'exhausted', exhausted_at = clock_timestamp(), exhaust_reason = 'rate_limit',
         recovery_at = (SELECT clock_timestamp()) + interval '15 seconds'`,
    );
    await quiet.query("CREATE TABLE exhausted_before AS SELECT agent_id, recovery_at FROM agents");
    // Both look ahead before the first recovery: a replica that starts later shares the time among those that are left.
    await using _one = await openReplica(database.url);
    await using _other = await openReplica(database.url);
    // The name of an agent assigns its place in those five seconds, however late this machine is.
    for (const { agentId, ms } of await delays(quiet, 1_000)) {
      expect(ms, agentId).toBeGreaterThanOrEqual(recoveryDelayMs(agentId, 1_000));
    }
  }, 90_000);

  test("are spread also when the replica learns of them shortly before they are due", async () => {
    await using database = await createTestDatabase();
    await using replica = await openReplica(database.url);
    using stream = replica.stream();
    // The server rejects a deadline in the past. If this machine was too slow for one, other agents are
    // exhausted.
    for (let leadMs = 900; ; leadMs += 100) {
      const agentIds = await replica.seedAgents(600, `short-${leadMs}-`);
      await stream.say(...agentIds.map(alive));
      const recoveryAt = (Date.now() + leadMs) * 1_000;
      await stream.say(
        ...agentIds.map((agentId) => reports(agentId, { exhausted: { reason: "rate_limit", recoveryAt } })),
      );
      await replica.untilHeard();
      if ((await databaseNow(replica)) >= recoveryAt) continue;
      await replica.query(
        `CREATE TABLE exhausted_before AS SELECT agent_id, recovery_at FROM agent_transitions
         WHERE to_status = 'exhausted' AND starts_with(agent_id, 'short-${leadMs}-')`,
      );
      break;
    }
    for (const { agentId, ms } of await delays(replica, 600)) {
      expect(ms, agentId).toBeGreaterThanOrEqual(recoveryDelayMs(agentId, 600));
    }
  }, 90_000);
});
