import { setTimeout as sleep } from "node:timers/promises";
import { cpuMs, residentBytes } from "../harness/cpu.ts";
import { Worker } from "../harness/processes.ts";
import { informs, loadShare, type Scenario } from "../harness/scenario.ts";
import { seedAgents } from "../harness/stage.ts";

const STREAMS = 500;
const PER_STREAM = 100;
const AGENTS = STREAMS * PER_STREAM;
const IDLE_MS = 5_000;
/** The default interval: after it, all agents have sent a beat, and beats have spread. */
const SPREAD_MS = 11_000;
/** A shorter round would depend on the distribution of beats in the interval. */
const ROUND_MS = 5_000;

interface Counters {
  readonly beats: number;
  readonly wal: number;
  readonly commits: number;
  readonly rows: number;
}

/** A fleet at the service's pace with default settings: the resources of a deployment. */
export const sizing: Scenario = {
  name: "sizing",
  title: "Cost of a fleet",
  full: true,
  async run(stage, bench) {
    const url = await stage.database("bench_sizing");
    await using undo = new AsyncDisposableStack();
    const replica = undo.use(await stage.replica(url));
    const questions = undo.use(await stage.questions(url));
    const cpu = async () => ({
      server: await cpuMs([replica.pid]),
      storage: await stage.cpuMs(),
      at: performance.now(),
    });
    await sleep(IDLE_MS);
    const idle = await cpu();
    await sleep(IDLE_MS);
    const stillIdle = await cpu();
    const restMib = (await residentBytes(replica.pid)) / 2 ** 20;
    await seedAgents(stage, url, { prefix: "paced-", count: AGENTS, perClaw: PER_STREAM });
    await stage.checkpoint();
    const load = undo.use(new Worker("load/silence.ts", "load"));
    const streams = Array.from({ length: STREAMS }, (_, n) => ({
      name: `paced-${n}`,
      claw: `claw-${n}`,
      agentIds: Array.from({ length: PER_STREAM }, (_, index) => `paced-${n * PER_STREAM + index + 1}`),
    }));
    await load.do("open", { address: replica.grpc, streams });
    await sleep(SPREAD_MS);
    const counted = async (): Promise<Counters> => {
      const { beats } = await load.do<{ beats: number }>("beats");
      const [row] = await questions.ask<Record<"wal" | "commits" | "rows", string>>(
        `SELECT pg_current_wal_lsn() - '0/0' AS wal,
                (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()) AS commits,
                (SELECT sum(n_tup_upd + n_tup_ins) FROM pg_stat_user_tables) AS rows`,
      );
      return { beats, wal: Number(row?.wal), commits: Number(row?.commits), rows: Number(row?.rows) };
    };
    const rounds: { server: number; storage: number; wal: number; commits: number; perSecond: number }[] = [];
    const start = await counted();
    const loadBefore = { cpu: await cpuMs([load.pid]), at: performance.now() };
    for (let round = 0; round < bench.rounds; round += 1) {
      const known = await counted();
      const before = await cpu();
      await sleep(ROUND_MS);
      const after = await cpu();
      const now = await counted();
      const beats = now.beats - known.beats;
      const seconds = (after.at - before.at) / 1_000;
      rounds.push({
        server: ((after.server - before.server) * 1_000) / beats,
        storage: ((after.storage - before.storage) * 1_000) / beats,
        wal: (now.wal - known.wal) / beats,
        commits: (now.commits - known.commits) / seconds,
        perSecond: beats / seconds,
      });
    }
    const loadAfter = { cpu: await cpuMs([load.pid]), at: performance.now() };
    const end = await counted();
    const share = (loadAfter.cpu - loadBefore.cpu) / (loadAfter.at - loadBefore.at);
    await load.do("close");
    const took = stillIdle.at - idle.at;
    return [
      informs("idle service: share of a core", "%", [((stillIdle.server - idle.server) / took) * 100]),
      informs("idle PostgreSQL: share of a core", "%", [((stillIdle.storage - idle.storage) / took) * 100]),
      informs("idle service: memory", "MiB", [restMib]),
      informs(
        "50 000 agents, 100 to a stream: beats a second",
        "/s",
        rounds.map(({ perSecond }) => perSecond),
      ),
      informs(
        "service: CPU a beat",
        "µs",
        rounds.map(({ server }) => server),
      ),
      informs(
        "PostgreSQL: CPU a beat",
        "µs",
        rounds.map(({ storage }) => storage),
      ),
      informs(
        "WAL a beat",
        "B",
        rounds.map(({ wal }) => wal),
      ),
      // PostgreSQL counts them with a delay, which is long compared to a round.
      informs("rows written a beat", "", [(end.rows - start.rows) / (end.beats - start.beats)]),
      informs(
        "commits a second",
        "/s",
        rounds.map(({ commits }) => commits),
      ),
      loadShare(bench, { fleet: [share] }),
    ];
  },
};
