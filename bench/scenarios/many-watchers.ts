import { setTimeout as sleep } from "node:timers/promises";
import { cpuMs, residentBytes } from "../harness/cpu.ts";
import { Worker } from "../harness/processes.ts";
import { informs, loadShare, type Scenario } from "../harness/scenario.ts";
import { seedAgents } from "../harness/stage.ts";
import type { FanOutFigures, FanOutJob } from "../load/fan-out.ts";

const WATCHERS = 10_000;
const CHANGED = 1_000;
const SETTLE_MS = 2_000;
const PAUSE_MS = 200;

/** Watchers of one agent each: a change concerns only one of them. */
export const manyWatchers: Scenario = {
  name: "many-watchers",
  title: "Ten thousand watchers of one agent each",
  named: true,
  async run(stage, bench) {
    const url = await stage.database("bench_many_watchers");
    await seedAgents(stage, url, { prefix: "watched-", count: WATCHERS });
    await using undo = new AsyncDisposableStack();
    const replica = undo.use(await stage.replica(url));
    const load = undo.use(new Worker("load/fan-out.ts", "load"));
    const resident = await residentBytes(replica.pid);
    const common = { address: replica.grpc, prefix: "watched-", agents: WATCHERS, watchers: WATCHERS };
    const opened = await load.do<{ ms: number }>("open", { ...common, what: "one agent each" } satisfies FanOutJob);
    await sleep(SETTLE_MS);
    const watcherKib = ((await residentBytes(replica.pid)) - resident) / 1_024 / WATCHERS;
    const rounds: (FanOutFigures & { serverUs: number })[] = [];
    for (let round = -1; round < bench.rounds; round += 1) {
      const before = await cpuMs([replica.pid]);
      const first = ((round + 1) * CHANGED) % WATCHERS;
      const figures = await load.do<FanOutFigures>("round", { first, size: CHANGED });
      const serverUs = (((await cpuMs([replica.pid])) - before) * 1_000) / CHANGED;
      if (round >= 0) rounds.push({ ...figures, serverUs });
      await sleep(PAUSE_MS);
    }
    await load.do("close");
    return [
      informs("to open all of them", "s", [opened.ms / 1_000]),
      informs("memory a watcher", "KiB", [watcherKib]),
      informs(
        "answer → watcher, 1 000 agents at once, p50",
        "ms",
        rounds.map(({ p50Ms }) => p50Ms),
      ),
      informs(
        "answer → watcher, 1 000 agents at once, p99",
        "ms",
        rounds.map(({ p99Ms }) => p99Ms),
      ),
      informs(
        "service: CPU a change, its heartbeat included",
        "µs",
        rounds.map(({ serverUs }) => serverUs),
      ),
      loadShare(bench, { changes: rounds.map(({ loadCpuMs, ms }) => loadCpuMs / ms) }),
    ];
  },
};
