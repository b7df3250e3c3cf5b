import { describe, expect, test } from "vitest";
import { createTestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica } from "../support/replica.ts";
import { alive, reports } from "../support/replica-stream.ts";
import { useStallMeter } from "../support/stall-meter.ts";
import { until } from "../support/until.ts";

const stalls = useStallMeter();

describe("recoveries of very many at one moment", () => {
  /** Milliseconds from `recovery_at` to each recovery. */
  async function delays(replica: Replica, count: number, withinMs: number): Promise<number[]> {
    return await until(
      `${count} recovered`,
      async () => {
        const rows = await replica.query<{ ms: number }>(
          `SELECT extract(epoch FROM t.occurred_at - b.recovery_at)::float8 * 1000 AS ms
           FROM agent_transitions t JOIN exhausted_before b USING (agent_id) WHERE t.cause = 'recovery'`,
        );
        return rows.length === count && rows.map(({ ms }) => ms);
      },
      withinMs,
    );
  }

  function expectSpread(ms: readonly number[], longestMs: number): void {
    expect(Math.min(...ms)).toBeGreaterThanOrEqual(0);
    // However busy this machine is.
    expect(Math.max(...ms)).toBeLessThan(longestMs + 2_000 + stalls.ms);
    const perHalfSecond = new Map<number, number>();
    for (const delay of ms)
      perHalfSecond.set(Math.floor(delay / 500), (perHalfSecond.get(Math.floor(delay / 500)) ?? 0) + 1);
    // 200 a second, more or less: a hash spreads evenly, not exactly. What was due in a stall comes after it.
    expect(Math.max(...perHalfSecond.values())).toBeLessThan(ms.length / 3 + stalls.ms / 5);
  }

  test("are spread: 1 000 agents over five seconds", async () => {
    await using database = await createTestDatabase();
    await using quiet = await openReplica(database.url, { started: false });
    await quiet.seedAgents(1_000, "provider-");
    await quiet.query(
      `UPDATE agents SET status = 'exhausted', exhausted_at = clock_timestamp(), exhaust_reason = 'rate_limit',
         recovery_at = (SELECT clock_timestamp()) + interval '1 second'`,
    );
    await quiet.query("CREATE TABLE exhausted_before AS SELECT agent_id, recovery_at FROM agents");
    await using _one = await openReplica(database.url);
    await using _other = await openReplica(database.url);
    expectSpread(await delays(quiet, 1_000, 20_000), 5_000);
  }, 40_000);

  test("are spread also where they are heard of only when they are nearly due", async () => {
    await using database = await createTestDatabase();
    await using replica = await openReplica(database.url);
    const agentIds = await replica.seedAgents(600, "short-");
    using stream = replica.stream();
    await stream.say(...agentIds.map(alive));
    const recoveryAt = (Date.now() + 900) * 1_000;
    await stream.say(
      ...agentIds.map((agentId) => reports(agentId, { exhausted: { reason: "rate_limit", recoveryAt } })),
    );
    await replica.query(
      "CREATE TABLE exhausted_before AS SELECT agent_id, recovery_at FROM agent_transitions WHERE to_status = 'exhausted'",
    );
    expectSpread(await delays(replica, 600, 20_000), 3_000);
  }, 40_000);
});
