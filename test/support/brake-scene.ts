import { expect } from "vitest";
import { type Expiry, expiries, KeptLog, MS, openReplicas, untilExpired } from "./fleet-scene.ts";
import type { Replica } from "./replica.ts";
import { alive, type TestStream } from "./replica-stream.ts";
import { StallMeter } from "./stall-meter.ts";
import { until } from "./until.ts";

/** Longer than six leases, however slow the machine is. */
export const WITHIN_MS = 100_000;
export const ALL = { agentIds: [], userIds: [], clawIdentifiers: [], statuses: [] };

/** The agents of one claw after the other. */
export async function seedClaws(replica: Replica, claws: number, agentsEach: number): Promise<string[][]> {
  const fleet: string[][] = [];
  for (let claw = 1; claw <= claws; claw++)
    fleet.push(await replica.seedAgents(agentsEach, `c${claw}-`, 600_000, `claw-${claw}`));
  return fleet;
}

/** All of them beat, each claw by a stream of its own; the fleet statistics are those after some seconds. */
export async function beatOnce(
  replicas: readonly Replica[],
  fleet: readonly (readonly string[])[],
  intervalMs: number,
): Promise<TestStream[]> {
  const streams = fleet.map((_, n) => {
    const replica = replicas[n % replicas.length];
    if (replica === undefined) throw new TypeError("there are replicas");
    return replica.stream();
  });
  await Promise.all(fleet.map((agentIds, n) => streams[n]?.say(...agentIds.map(alive))));
  await replicas[0]?.query(
    "UPDATE fleet_state SET claws = $1, agents = $2, interval_ms = $3, lease_ms = $4",
    fleet.length,
    fleet.flat().length,
    intervalMs,
    3 * intervalMs,
  );
  return streams;
}

/** The last heartbeat of each agent, and the end of its lease. */
export async function lastHeartbeats(replica: Replica): Promise<Map<string, { heard: number; ends: number }>> {
  const rows = await replica.query<{ agent_id: string; heard: number; ends: number }>(
    "SELECT agent_id, last_heartbeat AS heard, lease_expires_at AS ends FROM agent_states WHERE last_heartbeat IS NOT NULL",
  );
  return new Map(rows.map(({ agent_id, heard, ends }) => [agent_id, { heard, ends }]));
}

export async function engagedAt(replica: Replica): Promise<number | null> {
  return (await replica.agents.fleet(ALL)).brake?.engagedAt ?? null;
}

/** None before its lease ended, and all within six leases of the last beat. */
export function expectWithinSixLeases(
  expired: readonly Expiry[],
  heard: Map<string, { heard: number; ends: number }>,
  stalls: StallMeter,
  intervalMs: number,
): void {
  const leaseMs = 3 * intervalMs;
  const last = Math.max(...[...heard.values()].map((agent) => agent.heard));
  for (const { agent_id, at } of expired) {
    expect(at).toBeGreaterThanOrEqual(heard.get(agent_id)?.ends ?? Number.POSITIVE_INFINITY);
    expect(at).toBeLessThanOrEqual(last + (6 * leaseMs + stalls.lateMs({ intervalMs, leaseMs })) * MS);
  }
}

/**
 * Claws that do not return are offline within six leases, none before its lease ended, at the rate of the
 * brake.
 */
export async function expectSlowExpiry(claws: number, each: number, intervalMs: number): Promise<void> {
  const leaseMs = 3 * intervalMs;
  await using undo = new AsyncDisposableStack();
  const log = new KeptLog();
  const [replica] = await openReplicas(undo, { intervalMs, log });
  const stalls = undo.use(new StallMeter(replica));
  const fleet = await seedClaws(replica, claws, each);
  await beatOnce([replica], fleet, intervalMs);
  const heard = await lastHeartbeats(replica);
  const expired = await untilExpired(replica, claws * each, WITHIN_MS);
  expect(expired).toHaveLength(claws * each);
  expectWithinSixLeases(expired, heard, stalls, intervalMs);
  expect(log.of("brake.engaged")).toHaveLength(1);
  // Slowly: at the rate that expires all of them in four leases. Claws below the threshold of a mass silence
  // may expire at once, when their leases end one after the other; and the bucket may hold tokens of one
  // second.
  const atOnce = Math.max(2, Math.floor(claws / 5)) * each;
  const rate = (claws * each) / (4 * leaseMs);
  const [first] = expired.slice(atOnce);
  for (const [n, { at }] of expired.slice(atOnce).entries())
    expect(n).toBeLessThanOrEqual(rate * ((at - (first?.at ?? 0)) / MS + 1_000 + stalls.stalledMs) + 2);
  await until("the brake is released", async () => (await engagedAt(replica)) === null, WITHIN_MS);
  expect(new Set(expired.map(({ incident_id }) => incident_id)).size).toBe(claws);
  expect(replica.liveness.statistics().silentClaws).toBe(claws);
}

/** @param count replicas that share the brake */
export async function expectRateOfBrake(agents: number, count: number, intervalMs: number): Promise<void> {
  const leaseMs = 3 * intervalMs;
  await using undo = new AsyncDisposableStack();
  const options = { intervalMs };
  const replicas = await openReplicas(undo, ...Array.from({ length: count }, () => options));
  const [one] = replicas;
  const stalls = undo.use(new StallMeter(one));
  const fleet = await seedClaws(one, 20, agents / 20);
  // Once for each, when its lease has ended. The brake caused all further attempts.
  let again = 0;
  for (const { committer } of replicas) {
    const asked = new Set<string>();
    const submit = committer.submit.bind(committer);
    committer.submit = (change) => {
      if (change.actor === "server" && asked.has(change.agentId)) again += 1;
      if (change.actor === "server") asked.add(change.agentId);
      return submit(change);
    };
  }
  await beatOnce(replicas, fleet, intervalMs);
  const heard = await lastHeartbeats(one);
  const rate = await until("the brake engages", async () => {
    const [row] = await one.query<{ at: number | null; rate: number }>(
      "SELECT brake_engaged_at AS at, brake_rate AS rate FROM fleet_state",
    );
    return row?.at == null ? undefined : row.rate;
  });
  // All agents, in four leases.
  expect(rate).toBeLessThanOrEqual((agents / (4 * leaseMs)) * 1_000 * 1.000_001);
  // Measured while only the brake delays them: agents with a short guard are retried at its end.
  let since: { readonly at: number; readonly again: number } | undefined;
  let measured = 0;
  await until(
    "all have gone",
    async () => {
      const [state] = await one.query<{ at: number; guarded: boolean }>(
        `SELECT clock_timestamp() AS at, coalesce(greatest(max(g.until), max(f.no_lease_ends_before)), '-infinity')
           > clock_timestamp() - interval '1 second' AS guarded
         FROM fleet_state f LEFT JOIN lease_guards g ON true`,
      );
      if (state === undefined) throw new TypeError("the fleet has a state");
      if (state.guarded) since = undefined;
      else if (since === undefined) since = { at: state.at, again };
      else {
        const seconds = (state.at - since.at) / 1_000_000;
        // Two attempts for each agent that the brake releases, over all replicas. Attempts that were due during
        // a stall of the machine come afterwards.
        const late = 0.1 + stalls.stalledMs / 1_000;
        expect(again - since.again).toBeLessThanOrEqual(2 * rate * (seconds + late) + 2);
        measured = Math.max(measured, seconds);
      }
      return (await expiries(one)).length >= agents;
    },
    WITHIN_MS,
  );
  expect(measured).toBeGreaterThan(0);
  expectWithinSixLeases(await expiries(one), heard, stalls, intervalMs);
}
