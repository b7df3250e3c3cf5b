import { describe, expect, test as sequentially, vi } from "vitest";
import {
  beatOnce,
  engagedAt,
  expectRateOfBrake,
  expectSlowExpiry,
  lastHeartbeats,
  seedClaws,
  WITHIN_MS,
} from "../support/brake-scene.ts";
import { Beating, KeptLog, openReplicas, untilExpired } from "../support/fleet-scene.ts";

const INTERVAL_MS = 600;
vi.setConfig({ testTimeout: 120_000 });
/** The tests mostly wait for leases: they run concurrently, each with a database of its own. */
const test = sequentially.concurrent;

describe("the brake does not engage", () => {
  test.each([1, 2])("for %i silent claws of ten: their agents go offline at once", async (claws) => {
    await using undo = new AsyncDisposableStack();
    const log = new KeptLog();
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS, log });
    const fleet = await seedClaws(replica, 10, 20);
    const streams = await beatOnce([replica], fleet, INTERVAL_MS);
    for (const [n, agentIds] of fleet.entries())
      if (n >= claws) undo.use(new Beating(() => streams[n] ?? replica.stream(), agentIds, 100));
    const heard = await lastHeartbeats(replica);
    const expired = await untilExpired(replica, claws * 20, WITHIN_MS);
    for (const { agent_id, at } of expired) expect(at).toBeGreaterThanOrEqual(heard.get(agent_id)?.ends ?? 0);
    expect(new Set(expired.map(({ incident_id }) => incident_id)).size).toBe(claws);
    expect(await engagedAt(replica)).toBeNull();
    expect(log.of("brake.engaged")).toEqual([]);
  });

  test("for the last two claws of a small fleet", async () => {
    await using undo = new AsyncDisposableStack();
    const [replica] = await openReplicas(undo, { intervalMs: INTERVAL_MS });
    await beatOnce([replica], await seedClaws(replica, 2, 5), INTERVAL_MS);
    await untilExpired(replica, 10, WITHIN_MS);
    expect(await engagedAt(replica)).toBeNull();
  });
});

describe("the brake", () => {
  test("lets three silent claws go offline within six leases, and none early", () =>
    expectSlowExpiry(3, 1, INTERVAL_MS));

  test("retries held-back agents at its own rate", () => expectRateOfBrake(100, 1, 400));
});
