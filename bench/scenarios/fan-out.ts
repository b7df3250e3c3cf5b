import { setTimeout as sleep } from "node:timers/promises";
import { cpuMs } from "../harness/cpu.ts";
import { figure } from "../harness/figures.ts";
import { Worker } from "../harness/processes.ts";
import { informs, loadShare, type Measure, type Scenario } from "../harness/scenario.ts";
import { seedAgents } from "../harness/stage.ts";
import type { FanOutFigures, FanOutJob } from "../load/fan-out.ts";

const WATCHERS = 1_000;
/** Agents that change at once. Events are cheaper in larger groups; the requirement is for a hundred. */
const SIZES = [10, 100, 1_000];
const JUDGED = 100;
/** A round has as many changes as make this many events. */
const EVENTS = 200_000;
const SETTLE_MS = 1_000;
const PAUSE_MS = 100;

interface Round extends FanOutFigures {
  readonly serverUs: number;
}

/** Events in a second that reach watchers of all agents. */
export const fanOut: Scenario = {
  name: "fan-out",
  title: "Rate and cost of events to watchers",
  async run(stage, bench) {
    const agents = Math.max(...SIZES);
    const url = await stage.database("bench_fan_out");
    await seedAgents(stage, url, { prefix: "watched-", count: agents });
    await using undo = new AsyncDisposableStack();
    const replica = undo.use(await stage.replica(url));
    const load = undo.use(new Worker("load/fan-out.ts", "load"));
    const job = { address: replica.grpc, prefix: "watched-", agents, watchers: WATCHERS, what: "everything" } as const;
    await load.do("open", job satisfies FanOutJob);
    await sleep(SETTLE_MS);
    const oneRound = async (size: number): Promise<Round> => {
      const times = Math.max(1, EVENTS / WATCHERS / size);
      const total = { events: 0, ms: 0, loadCpuMs: 0, serverMs: 0 };
      let last: FanOutFigures | undefined;
      for (let n = 0; n < times; n += 1) {
        const before = await cpuMs([replica.pid]);
        last = await load.do<FanOutFigures>("round", { first: 0, size });
        total.serverMs += (await cpuMs([replica.pid])) - before;
        total.events += last.events;
        total.ms += last.ms;
        total.loadCpuMs += last.loadCpuMs;
      }
      await sleep(PAUSE_MS);
      if (last === undefined) throw new TypeError("a round of nothing");
      return { ...last, ...total, serverUs: (total.serverMs * 1_000) / total.events };
    };
    const rounds = new Map(SIZES.map((size): [number, Round[]] => [size, []]));
    for (const size of SIZES) await oneRound(size);
    for (let round = 0; round < bench.rounds; round += 1)
      for (const [size, some] of rounds) some.push(await oneRound(size));
    await load.do("close");
    const share = ({ loadCpuMs, ms }: Round) => loadCpuMs / ms;
    return [
      ...[...rounds].flatMap(([size, some]): Measure[] => {
        const name = `events a second, ${size} agents at once`;
        const perSecond = figure(some.map(({ events, ms }) => (events / ms) * 1_000));
        const goals = size === JUDGED ? { must: 50_000, aim: 150_000, more: true } : {};
        return [{ name, unit: "/s", figure: perSecond, ...goals }];
      }),
      ...[...rounds].map(([size, some]) =>
        informs(
          `service: CPU an event, ${size} agents at once`,
          "µs",
          some.map(({ serverUs }) => serverUs),
        ),
      ),
      loadShare(bench, Object.fromEntries([...rounds].map(([size, some]) => [`${size} at once`, some.map(share)]))),
    ];
  },
};
