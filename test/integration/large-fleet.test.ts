import { afterEach, expect, test } from "vitest";
import { createTestDatabase } from "../support/cluster.ts";
import { backdate, openReplicas, rowOf } from "../support/fleet-scene.ts";
import { openReplica } from "../support/replica.ts";
import { until } from "../support/until.ts";

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

test("a replica that joins a large fleet starts with the pace for that size, and no agent goes offline", async () => {
  const { url } = undo.use(await createTestDatabase());
  const seeding = undo.use(await openReplica(url, { started: false }));
  await seeding.seedAgents(120, "beating-");
  await seeding.seedAgents(80, "gone-");
  await seeding.query(
    `WITH gone AS (UPDATE agents SET status = 'offline' WHERE agent_id LIKE 'gone-%' RETURNING id)
     UPDATE agent_liveness SET lease_expires_at = NULL FROM gone WHERE agent = gone.id`,
  );
  const replica = undo.use(await openReplica(url, { intervalMs: 1_000, heartbeatsPerSecond: 10 }));
  expect(replica.liveness.pace().leaseMs).toBe(36_000);
  const noted = "SELECT agents, claws, interval_ms, lease_ms FROM fleet_state";
  await until(
    "it is noted",
    async () => (await replica.query<{ interval_ms: bigint }>(noted))[0]?.interval_ms === 12_000n,
  );
  expect(await replica.query(noted)).toEqual([{ agents: 120n, claws: 1n, interval_ms: 12_000n, lease_ms: 36_000n }]);
});

test("a replica refreshes its row while it adopts another replica, however long the adoption takes", async () => {
  const [adopter, gone = adopter] = await openReplicas(undo, { intervalMs: 400 }, { intervalMs: 400, started: false });
  const agentIds = await adopter.seedAgents(10, "left-");
  await adopter.query("UPDATE agent_liveness SET replica_id = $1", gone.number);
  using reading = adopter.gate.hold("adopted-leases", "before");
  await backdate(gone, adopter, 60_000);
  await reading.arrived();
  const seenAt = async (): Promise<number> =>
    (await adopter.query<{ at: number }>("SELECT seen_at AS at FROM replicas WHERE id = $1", adopter.number))[0]?.at ??
    0;
  for (const _ of [1, 2, 3]) {
    const before = await seenAt();
    await until("it says so again", async () => (await seenAt()) > before);
  }
  expect(adopter.liveness.statistics().agents).toBe(0);
  reading.release();
  await until("it watches their leases", () => adopter.liveness.statistics().agents === agentIds.length);
  expect((await rowOf(gone, adopter))?.adopted_by).toBe(adopter.number);
});
