import { setTimeout as sleep } from "node:timers/promises";
import { cpuMs } from "../harness/cpu.ts";
import { figure } from "../harness/figures.ts";
import { Worker } from "../harness/processes.ts";
import { informs, loadShare, type Scenario } from "../harness/scenario.ts";
import { seedAgents } from "../harness/stage.ts";
import type { TransitionFigures } from "../load/transitions.ts";

const STREAMS = 1_000;
const WARM_UP_MS = 3_000;
const REST_MS = 500;

interface Round extends TransitionFigures {
  readonly serverUs: number;
  readonly storageUs: number;
  readonly walBytes: number;
  readonly committed: number;
}

/** Status reports from many streams at once, as fast as they are acknowledged. */
export const transitions: Scenario = {
  name: "transitions",
  title: "Rate and cost of transitions",
  async run(stage, bench) {
    const url = await stage.database("bench_transitions");
    await seedAgents(stage, url, { prefix: "reporting-", count: STREAMS });
    await stage.checkpoint();
    await using undo = new AsyncDisposableStack();
    const replica = undo.use(await stage.replica(url));
    const load = undo.use(new Worker("load/transitions.ts", "load"));
    const questions = undo.use(await stage.questions(url));
    const counted = async () => {
      const [row] = await questions.ask<{ wal: string; transitions: string }>(
        "SELECT pg_current_wal_lsn() - '0/0' AS wal, (SELECT count(*) FROM agent_transitions) AS transitions",
      );
      return { wal: Number(row?.wal), transitions: Number(row?.transitions) };
    };
    const cpu = async () => ({ server: await cpuMs([replica.pid]), storage: await stage.cpuMs() });
    await load.do("open", { address: replica.grpc, streams: STREAMS, prefix: "reporting-" });
    const oneRound = async (ms: number): Promise<Round> => {
      const known = await counted();
      const before = await cpu();
      await load.do("work");
      const figures = await load.do<TransitionFigures>("count", { ms });
      await load.do("rest");
      // Wait until all reports are committed and acknowledged.
      await sleep(REST_MS);
      const after = await cpu();
      const now = await counted();
      const committed = now.transitions - known.transitions;
      if (committed < figures.count) throw new Error(`${figures.count} were acknowledged, ${committed} committed`);
      return {
        ...figures,
        committed,
        serverUs: ((after.server - before.server) * 1_000) / committed,
        storageUs: ((after.storage - before.storage) * 1_000) / committed,
        walBytes: (now.wal - known.wal) / committed,
      };
    };
    await oneRound(WARM_UP_MS);
    const rounds: Round[] = [];
    for (let round = 0; round < bench.rounds; round += 1) rounds.push(await oneRound(bench.roundMs));
    const each = (value: (round: Round) => number) => rounds.map(value);
    return [
      {
        name: "transitions a second, reports from 1 000 streams",
        unit: "/s",
        figure: figure(each(({ count, ms }) => (count / ms) * 1_000)),
        must: 5_000,
        aim: 15_000,
        more: true,
      },
      informs(
        "service: CPU a transition",
        "µs",
        each(({ serverUs }) => serverUs),
      ),
      informs(
        "PostgreSQL: CPU a transition",
        "µs",
        each(({ storageUs }) => storageUs),
      ),
      informs(
        "WAL a transition",
        "B",
        each(({ walBytes }) => walBytes),
      ),
      informs(
        "report → acknowledged, p50",
        "ms",
        each(({ p50Ms }) => p50Ms),
      ),
      informs(
        "report → acknowledged, p99",
        "ms",
        each(({ p99Ms }) => p99Ms),
      ),
      loadShare(bench, { transitions: each(({ loadCpuMs, ms }) => loadCpuMs / ms) }),
    ];
  },
};
