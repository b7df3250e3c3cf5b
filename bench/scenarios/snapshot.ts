import { setTimeout as sleep } from "node:timers/promises";
import { cpuMs, residentBytes } from "../harness/cpu.ts";
import { figure } from "../harness/figures.ts";
import { MemoryPeak } from "../harness/memory-peak.ts";
import { Worker } from "../harness/processes.ts";
import { informs, loadShare, type Scenario } from "../harness/scenario.ts";
import { seedAgents } from "../harness/stage.ts";
import type { SnapshotFigures } from "../load/snapshot.ts";

const AGENTS = 100_000;
const SETTLE_MS = 1_000;
const PAUSE_MS = 300;
const SAMPLE_MS = 20;

interface Round extends SnapshotFigures {
  readonly serverUs: number;
  readonly storageUs: number;
}

/** The time until a new watcher of a fleet without changes has its snapshot. */
export const snapshot: Scenario = {
  name: "snapshot",
  title: "A new watcher of 100 000 agents",
  async run(stage, bench) {
    const url = await stage.database("bench_snapshot");
    await seedAgents(stage, url, { prefix: "watched-", count: AGENTS });
    await using undo = new AsyncDisposableStack();
    const replica = undo.use(await stage.replica(url));
    const load = undo.use(new Worker("load/snapshot.ts", "load"));
    const oneRound = async (): Promise<Round> => {
      const before = { server: await cpuMs([replica.pid]), storage: await stage.cpuMs() };
      const figures = await load.do<SnapshotFigures>("take", { address: replica.grpc, agents: AGENTS });
      const serverUs = (((await cpuMs([replica.pid])) - before.server) * 1_000) / AGENTS;
      const storageUs = (((await stage.cpuMs()) - before.storage) * 1_000) / AGENTS;
      await sleep(PAUSE_MS);
      return { ...figures, serverUs, storageUs };
    };
    await oneRound();
    await sleep(SETTLE_MS);
    const rest = await residentBytes(replica.pid);
    const peak = undo.use(new MemoryPeak(replica.pid, SAMPLE_MS));
    const rounds: Round[] = [];
    for (let round = 0; round < bench.rounds; round += 1) rounds.push(await oneRound());
    const each = (value: (round: Round) => number) => rounds.map(value);
    return [
      { name: "until the snapshot is there", unit: "s", figure: figure(each(({ ms }) => ms / 1_000)), must: 3, aim: 1 },
      informs(
        "service: CPU an agent",
        "µs",
        each(({ serverUs }) => serverUs),
      ),
      informs(
        "PostgreSQL: CPU an agent",
        "µs",
        each(({ storageUs }) => storageUs),
      ),
      informs(
        "bytes an agent",
        "B",
        each(({ bytes }) => bytes / AGENTS),
      ),
      informs("memory meanwhile, more than at rest", "MiB", [(Math.max(peak.most, rest) - rest) / 2 ** 20]),
      loadShare(bench, { snapshots: each(({ loadCpuMs, ms }) => loadCpuMs / ms) }),
    ];
  },
};
