import { MemoryPeak } from "../harness/memory-peak.ts";
import { Worker } from "../harness/processes.ts";
import { informs, type Scenario } from "../harness/scenario.ts";
import { seedAgents } from "../harness/stage.ts";
import type { LatencyFigures } from "../load/latency.ts";

const AGENTS = 20_000;
const WATCHERS = 200;
const QUIET_MS = 20_000;
/** The listener ends a stream that is not read for a minute. */
const STALLED_MS = 55_000;
const SAMPLE_MS = 100;

/** Watchers of all agents that stop reading: the memory of each, and the effect on a watcher that reads. */
export const stalled: Scenario = {
  name: "stalled",
  title: "Two hundred watchers that stop reading",
  named: true,
  async run(stage, bench) {
    const url = await stage.database("bench_stalled");
    await seedAgents(stage, url, { prefix: "watched-", count: AGENTS });
    await using undo = new AsyncDisposableStack();
    const replica = undo.use(await stage.replica(url));
    const load = undo.use(new Worker("load/stalled.ts", "load"));
    const peak = undo.use(new MemoryPeak(replica.pid, SAMPLE_MS));
    const disturb = async (ms: number) => {
      peak.most = 0;
      const { p50Ms, p99Ms } = await load.do<LatencyFigures>("disturb", { ms });
      return { p50Ms, p99Ms, mostKib: peak.most / 1_024 };
    };
    await load.do("open", { address: replica.grpc, prefix: "watched-", agents: AGENTS });
    const before = await disturb(QUIET_MS);
    await load.do("stall", { watchers: WATCHERS });
    const during = await disturb(STALLED_MS);
    const { refused, first } = await load.do<{ refused: number; first: string }>("readOn");
    const after = await disturb(QUIET_MS);
    bench.note(
      `of ${WATCHERS / 2} watchers that do not conflate ${refused} were told that they are too slow (${first.split(":")[0]})`,
    );
    return [
      informs("a watcher that reads: answer → it knows, p99, nobody stands still", "ms", [before.p99Ms]),
      informs("… while they stand still", "ms", [during.p99Ms]),
      informs("… when they read on", "ms", [after.p99Ms]),
      informs("memory for each that stands still", "KiB", [(during.mostKib - before.mostKib) / WATCHERS]),
      informs("memory at most, nobody stands still", "MiB", [before.mostKib / 1_024]),
      informs("memory at most, while they stand still", "MiB", [during.mostKib / 1_024]),
    ];
  },
};
