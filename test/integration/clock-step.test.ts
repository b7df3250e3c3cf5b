import { afterEach, expect, test } from "vitest";
import { tryStream } from "../support/cut-off-scene.ts";
import {
  Beating,
  databaseNow,
  expiries,
  fleetGuard,
  leaseEnd,
  MS,
  openReplicas,
  untilExpired,
} from "../support/fleet-scene.ts";
import { alive } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

const INTERVAL_MS = 400;
const LEASE_MS = 3 * INTERVAL_MS;
const PACE = { intervalMs: INTERVAL_MS, firstLeaseMs: 60_000 };

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

// For stored values, a clock that jumps ahead is the same as values that move back.
test("a clock step of an hour ahead gives every agent of the fleet one lease to send a heartbeat", async () => {
  const [one, two = one] = await openReplicas(undo, PACE, PACE);
  const lively = await one.seedAgents(10, "lively-");
  const silent = await one.seedAgents(10, "silent-");
  // On a busy machine a replica with leases as short may take itself for isolated for a moment.
  using first = await until("one replica takes streams", () => tryStream(one));
  using second = await until("the other one does", () => tryStream(two));
  using _beating = new Beating(() => first, lively.slice(0, 5), 100);
  using _beatingToo = new Beating(() => second, lively.slice(5), 100);
  await first.say(...silent.slice(0, 5).map(alive));
  await second.say(...silent.slice(5).map(alive));
  await until("all are held", () => first.acknowledged > 1n && second.acknowledged > 1n);

  const [step] = await one.query<{ at: number }>(
    `WITH heard AS (UPDATE replicas SET seen_at = seen_at - interval '1 hour' RETURNING id),
     leases AS (
       UPDATE agent_liveness SET lease_expires_at = lease_expires_at - interval '1 hour',
         last_heartbeat = last_heartbeat - interval '1 hour'
       RETURNING agent
     )
     SELECT clock_timestamp() AS at, (SELECT count(*) FROM heard), (SELECT count(*) FROM leases)`,
  );
  for (const agentId of [...lively, ...silent]) {
    await one.watchLease(agentId);
    await two.watchLease(agentId);
  }
  const guard = await until("it is noticed", async () => (await fleetGuard(one)) ?? undefined);
  expect(guard).toBeGreaterThan((step?.at ?? 0) + (LEASE_MS - 50) * MS);

  const expired = await untilExpired(one, silent.length);
  expect(expired.map(({ agent_id }) => agent_id).toSorted()).toEqual(silent.toSorted());
  expect(Math.min(...expired.map(({ at }) => at))).toBeGreaterThanOrEqual(guard);
});

test("a clock step of an hour back keeps agents that send heartbeats, and expires silent ones in time", async () => {
  const [one] = await openReplicas(undo, PACE);
  const [lively = "", silent = ""] = await one.seedAgents(2, "set back-");
  using stream = one.stream();
  await stream.say(alive(silent));
  using _beating = new Beating(() => stream, [lively], 100);
  await until("they are held", () => stream.acknowledged > 2n);
  await one.query(
    `WITH heard AS (UPDATE replicas SET seen_at = seen_at + interval '1 hour' RETURNING id)
     UPDATE agent_liveness SET lease_expires_at = lease_expires_at + interval '1 hour'`,
  );
  await until(
    "the beat counts",
    async () => (await leaseEnd(one, lively)) < (await databaseNow(one)) + 2 * LEASE_MS * MS,
  );
  // A lease renewed before the step follows the clock of that time; the next beat gives it the new clock.
  await stream.say(alive(silent));
  const expired = await untilExpired(one, 1);
  expect(expired.map(({ agent_id }) => agent_id)).toEqual([silent]);
  expect(await expiries(one)).toHaveLength(1);
});
