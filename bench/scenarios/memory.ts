import { setTimeout as sleep } from "node:timers/promises";
import { residentBytes } from "../harness/cpu.ts";
import { figure } from "../harness/figures.ts";
import { Worker } from "../harness/processes.ts";
import { fewRounds, type Scenario } from "../harness/scenario.ts";
import { type Stage, seedAgents } from "../harness/stage.ts";
import type { HeartbeatFigures, HeartbeatJob } from "../load/heartbeats.ts";

/**
 * What a process takes once, however many agents there are, is no agent's: before anything is measured, another fleet beats
 * as fast as it can, until V8 has as much room for what is short-lived as it ever takes.
 */
const WARM_UP_MESSAGES = 60_000;
const WARM_UP_MS = 30_000;
/** How long after the last message the replica has to come to rest. */
const SETTLE_MS = 2_000;

interface Shape {
  readonly streams: number;
  readonly agentsPerStream: number;
}

const OWN: Shape = { streams: 5_000, agentsPerStream: 1 };
const SHARED: Shape = { streams: 500, agentsPerStream: 100 };

/** Resident memory that a fleet adds to a replica that has served another one before. */
export const memory: Scenario = {
  name: "memory",
  title: "What an agent costs in memory",
  async run(stage, asked) {
    const own: number[] = [];
    const shared: number[] = [];
    for (let round = 0; round < fewRounds(asked); round += 1) {
      // Beside each other: what they share is time, which is not measured.
      const [ownKib, sharedKib] = await Promise.all([growth(stage, "own", OWN), growth(stage, "shared", SHARED)]);
      own.push(ownKib);
      shared.push(sharedKib);
    }
    return [
      { name: "an agent with a stream of its own", unit: "KiB", figure: figure(own), must: 30, aim: 22 },
      { name: "an agent, 100 to a stream", unit: "KiB", figure: figure(shared), must: 2, aim: 1 },
    ];
  },
};

/** KiB an agent. */
async function growth(stage: Stage, name: string, fleet: Shape): Promise<number> {
  const url = await stage.database(`bench_memory_${name}`);
  const count = fleet.streams * fleet.agentsPerStream;
  await seedAgents(stage, url, { prefix: "warm-", count: 1_000 });
  await seedAgents(stage, url, { prefix: "many-", count });
  await using replica = await stage.replica(url);
  await using load = new Worker("load/heartbeats.ts", "load");
  const common = { address: replica.grpc, target: "service", connections: 50 } as const;
  const warm: HeartbeatJob = { ...common, streams: 100, agentsPerStream: 10, prefix: "warm-", everyMs: 0 };
  await load.do("open", { name: "warm", fleet: warm });
  await load.do("work", { name: "warm" });
  const late = performance.now() + WARM_UP_MS;
  for (let messages = 0; messages < WARM_UP_MESSAGES && performance.now() < late; )
    messages += (await load.do<HeartbeatFigures>("count", { name: "warm", ms: 500 })).messages;
  await load.do("rest", { name: "warm" });
  await sleep(SETTLE_MS);
  const before = await residentBytes(replica.pid);
  const job: HeartbeatJob = { ...common, ...fleet, prefix: "many-", everyMs: 10_000 };
  await load.do("open", { name: "fleet", fleet: job });
  await sleep(SETTLE_MS);
  const after = await residentBytes(replica.pid);
  return (after - before) / 1_024 / count;
}
