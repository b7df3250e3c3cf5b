import { setTimeout as sleep } from "node:timers/promises";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { createServiceClients } from "harborforge-agents-client";
import { HeartbeatStream } from "harborforge-agents-client/internal";
import { describe, expect, test as sequentially, vi } from "vitest";
import { millisOf } from "../../src/contract/timestamps.ts";
import { INTERVAL_JITTER, SHORTEST_FIRST_SHARE } from "../../src/domain/lease.ts";
import { HeartbeatClient } from "../support/heartbeat-client.ts";
import { type RunningService, startService } from "../support/service.ts";
import { until } from "../support/until.ts";

vi.setConfig({ testTimeout: 120_000 });
const test = sequentially.concurrent;

function durationMs(duration: Duration | undefined): number {
  if (duration === undefined) throw new TypeError("every answer has a pace");
  return millisOf(duration);
}

/** Agents as if they had been there for long; nobody beats for them. */
async function seed(service: RunningService, count: number, prefix: string): Promise<string[]> {
  await service.query(
    `WITH u AS (INSERT INTO users (username) SELECT $2 || n FROM generate_series(1, $1::integer) n RETURNING id, username),
     a AS (
       INSERT INTO agents (user_id, agent_id, claw_identifier, created_at, status_changed_at, revision)
       SELECT u.id, u.username, 'claw-1', clock_timestamp(), clock_timestamp(), c.revision FROM u, revision_counter c
       RETURNING id, revision
     )
     INSERT INTO agent_liveness (agent, revision, epoch, lease_expires_at)
     SELECT id, revision, nextval('agent_epochs'), clock_timestamp() + interval '1 hour' FROM a`,
    count,
    prefix,
  );
  return Array.from({ length: count }, (_, index) => `${prefix}${index + 1}`);
}

describe("the pace that the server sets", () => {
  test("spreads a fleet that reconnects at once within two intervals", async () => {
    const intervalMs = 2_000;
    const streams = 200;
    await using undo = new AsyncDisposableStack();
    const service = undo.use(
      await startService({ pace: { shortestIntervalMs: intervalMs, heartbeatsPerSecond: 10_000 } }),
    );
    const agentIds = await seed(service, streams, "spread-");
    const { agents } = undo.use(createServiceClients({ address: service.addresses.grpc }));
    // When each would beat for the second and the third time, obeying, if all had connected at the same moment: what they
    // are told decides that, however slow the machine is.
    const told = await Promise.all(
      agentIds.map(async (agentId) => {
        const client = undo.use(new HeartbeatClient(agents));
        const told = async (): Promise<number> => {
          await client.say({ agentId });
          return durationMs(client.responses.at(-1)?.nextHeartbeatIn);
        };
        const second = await told();
        await sleep(second + 50);
        return { second, third: second + (await told()) };
      }),
    );
    for (const { second, third } of told) {
      expect(second).toBeGreaterThanOrEqual(intervalMs * SHORTEST_FIRST_SHARE);
      expect(second).toBeLessThanOrEqual(intervalMs);
      expect(third - second).toBeGreaterThanOrEqual(intervalMs * (1 - INTERVAL_JITTER));
      expect(third - second).toBeLessThanOrEqual(intervalMs);
    }
    for (const beat of ["second", "third"] as const) {
      const tenths = Array.from({ length: 10 }, () => 0);
      for (const times of told) {
        const tenth = Math.floor((times[beat] % intervalMs) / (intervalMs / 10));
        tenths[tenth] = (tenths[tenth] ?? 0) + 1;
      }
      // A tenth of an interval has a tenth of the beats, more or less: nowhere near what came at once.
      expect(Math.max(...tenths)).toBeLessThan(streams / 3.5);
      expect(tenths.filter((beats) => beats > 0).length).toBeGreaterThanOrEqual(9);
    }
  });

  test("makes no agent late that obeys, when it is raised and when it is lowered", async () => {
    await using undo = new AsyncDisposableStack();
    const service = undo.use(await startService({ pace: { shortestIntervalMs: 800, heartbeatsPerSecond: 500 } }));
    const agentIds = await seed(service, 40, "obeys-");
    const clients = undo.use(createServiceClients({ address: service.addresses.grpc }));
    const { agents } = undo.use(createServiceClients({ address: service.addresses.grpc }));
    const paces = new Set<number>();
    for (const agentId of agentIds) {
      const stream = new HeartbeatStream({
        clients,
        clawIdentifier: "claw-1",
        instanceId: agentId,
        onBeat: ({ refusal }) => expect(refusal).toBeUndefined(),
      });
      undo.defer(() => stream.close());
      stream.add(agentId);
    }
    const lease = async (): Promise<number> => {
      const leaseMs = durationMs((await agents.getFleet({})).leaseTtl);
      paces.add(leaseMs);
      return leaseMs;
    };
    const expired = async (): Promise<unknown[]> =>
      await service.query("SELECT agent_id FROM agent_transitions WHERE cause = 'lease_expired'");
    expect(await lease()).toBe(2_400);
    // Four times as many as the shortest interval bears: it grows, step by step.
    await seed(service, 1_600, "others-");
    await until("it is raised", async () => (await lease()) > 2_400 * 2, 50_000);
    expect(paces.size).toBeGreaterThan(2);
    await service.query(
      `WITH gone AS (
         UPDATE agent_liveness SET lease_expires_at = NULL WHERE lease_expires_at > clock_timestamp() + interval '10 min' RETURNING agent
       ) UPDATE agents a SET status = 'offline' FROM gone g WHERE a.id = g.agent`,
    );
    await until("it is lowered", async () => (await lease()) === 2_400, 50_000);
    // Who was told the long interval has beaten by then, and again by the short one.
    await heardTwice(service, agentIds.length);
    expect(await expired()).toEqual([]);
  });
});

/** Waits until each of them was heard twice more. */
async function heardTwice(service: RunningService, count: number): Promise<void> {
  for (const _ of [1, 2]) {
    const [since] = await service.query<{ now: string }>("SELECT clock_timestamp()::text AS now");
    await until("all were heard", async () => {
      const [row] = await service.query<{ n: string }>(
        "SELECT count(*) AS n FROM agent_liveness WHERE last_heartbeat > $1::timestamptz AND lease_expires_at > clock_timestamp()",
        since?.now,
      );
      return Number(row?.n) === count;
    });
  }
}
