import { setTimeout as sleep } from "node:timers/promises";
import { createServiceClients } from "harborforge-agents-client";
import { describe, expect, test as sequentially, vi } from "vitest";
import { INTERVAL_JITTER, SHORTEST_FIRST_SHARE } from "../../src/domain/lease.ts";
import { HeartbeatClient } from "../support/heartbeat-client.ts";
import { durationMs, seed } from "../support/pace-scene.ts";
import { startService } from "../support/service.ts";

vi.setConfig({ testTimeout: 120_000 });
const test = sequentially.concurrent;

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
    // The times of the second and third beats of obeying agents that connected at the same moment. The
    // responses decide them, however slow the machine is.
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
      // A tenth of an interval has about a tenth of the beats, far from all at once.
      expect(Math.max(...tenths)).toBeLessThan(streams / 3.5);
      expect(tenths.filter((beats) => beats > 0).length).toBeGreaterThanOrEqual(9);
    }
  });
});
