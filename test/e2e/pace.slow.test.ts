import { createServiceClients } from "harborforge-agents-client";
import { HeartbeatStream } from "harborforge-agents-client/internal";
import { describe, expect, test as sequentially, vi } from "vitest";
import { durationMs, seed } from "../support/pace-scene.ts";
import { type RunningService, startService } from "../support/service.ts";
import { until } from "../support/until.ts";

vi.setConfig({ testTimeout: 120_000 });
const test = sequentially.concurrent;

describe("the pace that the server sets", () => {
  test("makes no obeying agent late when it is raised and when it is lowered", async () => {
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
        onMessage: (message) => expect(message).toMatchObject({ kind: "result", refusal: undefined }),
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
    // Four times as many agents as the shortest interval allows: it grows, step by step.
    await seed(service, 1_600, "others-");
    await until("it is raised", async () => (await lease()) > 2_400 * 2, 50_000);
    expect(paces.size).toBeGreaterThan(2);
    await service.query(
      `WITH gone AS (
         UPDATE agent_liveness SET lease_expires_at = NULL WHERE lease_expires_at > clock_timestamp() + interval '10 min' RETURNING agent
       ) UPDATE agents a SET status = 'offline' FROM gone g WHERE a.id = g.agent`,
    );
    await until("it is lowered", async () => (await lease()) === 2_400, 50_000);
    // Agents with the long interval have beaten by then, and again by the short one.
    await heardTwice(service, agentIds.length);
    expect(await expired()).toEqual([]);
  });
});

/** Waits until each of them has sent two more beats. */
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
