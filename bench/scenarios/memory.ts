import { setTimeout as sleep } from "node:timers/promises";
import { collectGarbage, INSPECTABLE } from "../harness/collection.ts";
import { residentBytes } from "../harness/cpu.ts";
import { figure } from "../harness/figures.ts";
import { Worker } from "../harness/processes.ts";
import { fewRounds, informs, type Scenario } from "../harness/scenario.ts";
import { type Stage, seedAgents } from "../harness/stage.ts";
import type { HeartbeatFigures, HeartbeatJob } from "../load/heartbeats.ts";

/** The memory that a process needs once (code, pools, connections to PostgreSQL) does not count. */
const WARM_UP_MESSAGES = 20_000;
const WARM_UP_MS = 30_000;
/** The pause after the last message before the measurement, in milliseconds. */
const SETTLE_MS = 2_000;

interface Shape {
  readonly streams: number;
  readonly agentsPerStream: number;
}

const OWN: Shape = { streams: 5_000, agentsPerStream: 1 };
const SHARED: Shape = { streams: 500, agentsPerStream: 100 };

/** The growth of the replica's resident memory for each agent, in KiB. */
interface Growth {
  /** With garbage. V8 decides its amount by the size of the whole heap. */
  readonly atOnce: number;
  /** After garbage collection, before the fleet and after it. */
  readonly kept: number;
}

export const memory: Scenario = {
  name: "memory",
  title: "Memory of an agent",
  async run(stage, bench) {
    const own: Growth[] = [];
    const shared: Growth[] = [];
    for (let round = 0; round < fewRounds(bench); round += 1) {
      // In parallel, because time is not measured here.
      const [ownGrowth, sharedGrowth] = await Promise.all([growth(stage, "own", OWN), growth(stage, "shared", SHARED)]);
      own.push(ownGrowth);
      shared.push(sharedGrowth);
    }
    const kept = (some: readonly Growth[]) => figure(some.map(({ kept }) => kept));
    const atOnce = (some: readonly Growth[]) => some.map(({ atOnce }) => atOnce);
    return [
      { name: "an agent with a stream of its own", unit: "KiB", figure: kept(own), must: 30, aim: 22 },
      { name: "an agent, 100 to a stream", unit: "KiB", figure: kept(shared), must: 2, aim: 1 },
      informs("an agent with a stream of its own, garbage included", "KiB", atOnce(own)),
      informs("an agent, 100 to a stream, garbage included", "KiB", atOnce(shared)),
    ];
  },
};

async function growth(stage: Stage, name: string, fleet: Shape): Promise<Growth> {
  const url = await stage.database(`bench_memory_${name}`);
  const count = fleet.streams * fleet.agentsPerStream;
  await seedAgents(stage, url, { prefix: "warm-", count: 1_000 });
  await seedAgents(stage, url, { prefix: "many-", count });
  await using replica = await stage.replica(url, INSPECTABLE);
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
  await collectGarbage(replica.started);
  const before = await residentBytes(replica.pid);
  const job: HeartbeatJob = { ...common, ...fleet, prefix: "many-", everyMs: 10_000 };
  await load.do("open", { name: "fleet", fleet: job });
  await sleep(SETTLE_MS);
  const atOnce = await residentBytes(replica.pid);
  await collectGarbage(replica.started);
  const after = await residentBytes(replica.pid);
  const kib = (bytes: number) => (bytes - before) / 1_024 / count;
  return { atOnce: kib(atOnce), kept: kib(after) };
}
