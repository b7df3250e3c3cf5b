import { setTimeout as sleep } from "node:timers/promises";
import { cpuMs, residentBytes } from "../harness/cpu.ts";
import { figure } from "../harness/figures.ts";
import { Worker } from "../harness/processes.ts";
import type { Asked, Measure, Scenario } from "../harness/scenario.ts";
import { type Stage, seedAgents } from "../harness/stage.ts";
import type { FleetFigures, FleetJob } from "../load/fleet.ts";

interface FleetSize {
  readonly agents: number;
  readonly agentsPerStream: number;
  /** How long it is watched, once all agents beat. */
  readonly seconds: number;
  readonly env?: Readonly<Record<string, string>>;
}

interface Outcome {
  readonly lost: number;
  readonly refused: number;
  readonly ended: number;
  readonly beatsPerSecond: number;
  /** Microseconds a beat. */
  readonly serverUs: number;
  readonly storageUs: number;
  readonly serverShare: number;
  readonly slowestMs: number;
  readonly residentMiB: number;
}

/** How the cost of a beat grows with the fleet, at the same number of beats a second. */
export const growth: Scenario = {
  name: "growth",
  title: "How the cost of a beat grows with the fleet",
  async run(stage, asked) {
    const small = await watch(stage, asked, {
      agents: 1_000,
      agentsPerStream: 100,
      seconds: 12,
      env: { HARBORFORGE_HEARTBEAT_INTERVAL: "100ms", HARBORFORGE_HEARTBEATS_PER_SECOND: "10000" },
    });
    const large = await watch(stage, asked, {
      agents: asked.full ? 200_000 : 100_000,
      agentsPerStream: 100,
      seconds: 24,
      env: { HARBORFORGE_HEARTBEATS_PER_SECOND: "10000" },
    });
    const costs = ({ serverUs, storageUs }: Outcome) => serverUs + storageUs;
    const name = `${asked.full ? 200 : 100} k ÷ 1 k agents, CPU a beat`;
    return [
      { name: "1 k agents: CPU a beat, service", unit: "µs", figure: figure([small.serverUs]) },
      { name: "1 k agents: CPU a beat, PostgreSQL", unit: "µs", figure: figure([small.storageUs]) },
      { name: "large fleet: CPU a beat, service", unit: "µs", figure: figure([large.serverUs]) },
      { name: "large fleet: CPU a beat, PostgreSQL", unit: "µs", figure: figure([large.storageUs]) },
      { name, unit: "×", figure: figure([costs(large) / costs(small)]), must: 1.5, aim: 1.1 },
    ];
  },
};

/** The largest fleets: only where they are asked for. */
export const fleets: Scenario = {
  name: "fleets",
  title: "The fleet that fits",
  full: true,
  async run(stage, asked) {
    const sizes: (FleetSize & { name: string; must: number; aim: number })[] = [
      { name: "at the default pace", agents: 1_000_000, agentsPerStream: 1_000, seconds: 300, must: 500, aim: 1_000 },
      {
        name: "at an interval of 30 s",
        agents: 1_000_000,
        agentsPerStream: 1_000,
        seconds: 300,
        env: { HARBORFORGE_HEARTBEAT_INTERVAL: "30s", HARBORFORGE_HEARTBEATS_PER_SECOND: "1000000" },
        must: 200,
        aim: 1_000,
      },
      { name: "one stream an agent", agents: 100_000, agentsPerStream: 1, seconds: 300, must: 50, aim: 100 },
    ];
    const measures: Measure[] = [];
    for (const { name, must, aim, ...size } of sizes) {
      // The largest of these that nobody is lost in.
      let outcome: Outcome | undefined;
      let agents = size.agents;
      for (; agents >= size.agents / 16; agents /= 2) {
        asked.tell(`  ${agents} agents ${name}`);
        outcome = await watch(stage, asked, { ...size, agents });
        asked.tell(`  ${JSON.stringify(outcome)}`);
        if (outcome.lost === 0 && outcome.ended === 0) break;
      }
      measures.push({ name: `agents ${name}`, unit: "k", figure: figure([agents / 1_000]), must, aim, more: true });
      if (outcome === undefined) continue;
      measures.push(
        { name: `  beats a second ${name}`, unit: "/s", figure: figure([outcome.beatsPerSecond]) },
        { name: "  CPU a beat, service", unit: "µs", figure: figure([outcome.serverUs]) },
        { name: "  CPU a beat, PostgreSQL", unit: "µs", figure: figure([outcome.storageUs]) },
        { name: "  the service's share of a core", unit: "", figure: figure([outcome.serverShare]) },
        { name: "  slowest acknowledgement", unit: "ms", figure: figure([outcome.slowestMs]) },
        { name: "  resident memory", unit: "MiB", figure: figure([outcome.residentMiB]) },
      );
    }
    return measures;
  },
};

async function watch(stage: Stage, asked: Asked, size: FleetSize): Promise<Outcome> {
  const url = await stage.database("bench_fleet");
  await seedAgents(stage, url, { prefix: "fleet-", count: size.agents });
  await using replica = await stage.replica(url, size.env);
  await using load = new Worker("load/fleet.ts", "load");
  const streams = size.agents / size.agentsPerStream;
  const fleet: FleetJob = {
    address: replica.grpc,
    streams,
    agentsPerStream: size.agentsPerStream,
    connections: Math.min(100, streams),
    prefix: "fleet-",
    perSecond: Math.max(10, 10_000 / size.agentsPerStream),
  };
  const { ms } = await load.do<{ ms: number }>("open", { fleet });
  asked.tell(`  ${size.agents} agents on ${streams} streams were there after ${(ms / 1_000).toFixed(1)} s`);
  await sleep(2_000);
  await load.do("figures");
  const before = { server: await cpuMs([replica.pid]), storage: await stage.cpuMs(), at: performance.now() };
  await sleep(size.seconds * 1_000);
  const after = { server: await cpuMs([replica.pid]), storage: await stage.cpuMs(), at: performance.now() };
  const { acknowledged, refused, ended, slowestMs } = await load.do<FleetFigures>("figures");
  const residentMiB = (await residentBytes(replica.pid)) / 2 ** 20;
  const [row] = await stage.query<{ lost: number }>(
    url,
    "SELECT count(*)::integer AS lost FROM agent_transitions WHERE cause = 'lease_expired'",
  );
  await load.do("close");
  await stage.drop("bench_fleet");
  const beats = acknowledged * size.agentsPerStream;
  const took = after.at - before.at;
  return {
    lost: row?.lost ?? Number.NaN,
    refused,
    ended,
    beatsPerSecond: (beats / took) * 1_000,
    serverUs: ((after.server - before.server) * 1_000) / beats,
    storageUs: ((after.storage - before.storage) * 1_000) / beats,
    serverShare: (after.server - before.server) / took,
    slowestMs,
    residentMiB,
  };
}
