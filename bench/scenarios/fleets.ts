import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { spawnSync } from "../../test/support/owned-process.ts";
import { cpuMs, family, residentBytes } from "../harness/cpu.ts";
import { figure, ratio } from "../harness/figures.ts";
import { CORES, Worker } from "../harness/processes.ts";
import { type BenchRun, informs, type Measure, type Scenario } from "../harness/scenario.ts";
import { AGENTS_PER_CLAW, type Questions, type Stage, seedAgents } from "../harness/stage.ts";
import type { FleetFigures, FleetJob } from "../load/fleet.ts";
import type { FleetNews } from "../load/fleet-news.ts";
import { Latency, type LatencyFigures } from "../load/latency.ts";

interface FleetSize {
  readonly agents: number;
  readonly agentsPerStream: number;
  /** How long the fleet is measured once all agents beat, and in how many rounds (default one). */
  readonly seconds: number;
  readonly rounds?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Meanwhile, others watch, list and change the fleet, and one of its claws falls silent; on all cores. */
  readonly lively?: boolean;
}

interface Outcome {
  /** Until each stream had an acknowledged message. */
  readonly openedS: number;
  /** Agents that went offline although they sent heartbeats. */
  readonly lost: number;
  readonly refused: number;
  readonly ended: number;
  readonly beatsPerSecond: number;
  /** Microseconds for each beat, by round. */
  readonly serverUs: readonly number[];
  readonly storageUs: readonly number[];
  readonly serverShare: number;
  readonly storageShare: number;
  readonly walPerBeat: number;
  readonly slowestMs: number;
  readonly residentMiB: number;
  readonly lively?: Lively;
}

interface Lively {
  readonly news: LatencyFigures;
  readonly answer: LatencyFigures;
  readonly getFleet: LatencyFigures;
  readonly listAgents: LatencyFigures;
  /** From the expiry of each lease of the silent claw until the watcher got it, and how many it got. */
  readonly leaseEnd: LatencyFigures;
}

/** The round of compared fleets: longer than the heartbeat interval. */
const WINDOW_S = 12;
const PREFIX = "fleet-";
const SEEDED_AT_ONCE = 100_000;
/** Agents whose status others change. They send no heartbeats. */
const CHANGED = Array.from({ length: 10 }, (_, n) => `changed-${n + 1}`);
const AGENTS_OPENED_A_SECOND = 10_000;
/** The value of `HARBORFORGE_STREAMS_PER_CALLER`. */
const DEFAULT_STREAMS_PER_CALLER = 100_000;
const STREAMS_OPENED_A_SECOND = 2_000;
/** How long after the measurement the leases of the silent claw may still expire. */
const LAST_END_MS = 60_000;

/** Cost of a beat by the size of the fleet, at the same number of beats a second. */
export const growth: Scenario = {
  name: "growth",
  title: "Cost of a beat by the size of the fleet",
  async run(stage, bench) {
    const small = await watch(stage, bench, {
      agents: 1_000,
      agentsPerStream: 100,
      seconds: WINDOW_S,
      rounds: bench.rounds,
      env: { HARBORFORGE_HEARTBEAT_INTERVAL: "100ms", HARBORFORGE_HEARTBEATS_PER_SECOND: "10000" },
    });
    const large = await watch(stage, bench, {
      agents: bench.full ? 200_000 : 100_000,
      agentsPerStream: 100,
      seconds: bench.full ? 2 * WINDOW_S : WINDOW_S,
      rounds: bench.rounds,
      env: { HARBORFORGE_HEARTBEATS_PER_SECOND: "10000" },
    });
    const costs = ({ serverUs, storageUs }: Outcome) =>
      serverUs.map((us, round) => us + (storageUs[round] ?? Number.NaN));
    const name = `${bench.full ? 200 : 100} k ÷ 1 k agents, CPU a beat`;
    return [
      informs("1 k agents: CPU a beat, service", "µs", small.serverUs),
      informs("1 k agents: CPU a beat, PostgreSQL", "µs", small.storageUs),
      informs("large fleet: CPU a beat, service", "µs", large.serverUs),
      informs("large fleet: CPU a beat, PostgreSQL", "µs", large.storageUs),
      { name, unit: "×", figure: ratio(costs(large), costs(small)), must: 1.5, aim: 1.1 },
    ];
  },
};

/** The largest fleets: only with `--scale full`. */
export const fleets: Scenario = {
  name: "fleets",
  title: "The largest fleet",
  full: true,
  async run(stage, bench) {
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
      // The largest of these without a lost agent.
      let outcome: Outcome | undefined;
      let agents = size.agents;
      for (; agents >= size.agents / 16; agents /= 2) {
        bench.log(`  ${agents} agents ${name}`);
        outcome = await watch(stage, bench, { ...size, agents, lively: true });
        bench.log(`  ${JSON.stringify(outcome)}`);
        if (outcome.lost === 0 && outcome.ended === 0) break;
      }
      measures.push({ name: `agents ${name}`, unit: "k", figure: figure([agents / 1_000]), must, aim, more: true });
      if (outcome !== undefined) measures.push(...detailsOf(name, outcome));
    }
    return measures;
  },
};

function detailsOf(name: string, outcome: Outcome): Measure[] {
  const { lively } = outcome;
  const of = (what: string) => `${name}: ${what}`;
  return [
    informs(of("until all were there"), "s", [outcome.openedS]),
    informs(of("beats a second"), "/s", [outcome.beatsPerSecond]),
    informs(of("CPU a beat, service"), "µs", outcome.serverUs),
    informs(of("CPU a beat, PostgreSQL"), "µs", outcome.storageUs),
    informs(of("cores, service"), "", [outcome.serverShare]),
    informs(of("cores, PostgreSQL"), "", [outcome.storageShare]),
    informs(of("WAL a beat"), "B", [outcome.walPerBeat]),
    informs(of("slowest acknowledgement"), "ms", [outcome.slowestMs]),
    informs(of("resident memory"), "MiB", [outcome.residentMiB]),
    ...(lively === undefined
      ? []
      : [
          // If the watch ended early there is only a note.
          ...(lively.news.count === 0
            ? []
            : [
                informs(of("status changed → watcher of all, p50"), "ms", [lively.news.p50Ms]),
                informs(of("status changed → watcher of all, p99"), "ms", [lively.news.p99Ms]),
              ]),
          ...(lively.leaseEnd.count === 0
            ? []
            : [
                informs(of("lease end of a silent claw → watcher, p99"), "ms", [lively.leaseEnd.p99Ms]),
                informs(of("ends of its leases that the watcher was told of"), "", [lively.leaseEnd.count]),
              ]),
          informs(of("GetFleet, p50"), "ms", [lively.getFleet.p50Ms]),
          informs(of("ListAgents, 1 000 a page, p50"), "ms", [lively.listAgents.p50Ms]),
        ]),
  ];
}

async function watch(stage: Stage, bench: BenchRun, size: FleetSize): Promise<Outcome> {
  const url = await stage.database("bench_fleet");
  await seedFleet(stage, url, size.agents);
  const outcome = await watchOn(stage, bench, url, size);
  await stage.drop("bench_fleet");
  return outcome;
}

async function watchOn(stage: Stage, bench: BenchRun, url: string, size: FleetSize): Promise<Outcome> {
  await using undo = new AsyncDisposableStack();
  const questions = undo.use(await stage.questions(url));
  const streams = size.agents / size.agentsPerStream;
  const replica = undo.use(await stage.replica(url, { ...envFor(streams), ...size.env }));
  const load = undo.use(new Worker("load/fleet.ts", "load"));
  const watcher = undo.use(new Worker("load/fleet-news.ts", "load"));
  // Service and PostgreSQL use both cores, which they share with the load.
  if (size.lively === true) await onAllCores(questions, [replica.pid, load.pid, watcher.pid]);
  const fleet: FleetJob = {
    address: replica.grpc,
    streams,
    agentsPerStream: size.agentsPerStream,
    connections: Math.min(100, streams),
    prefix: PREFIX,
    perSecond: Math.min(STREAMS_OPENED_A_SECOND, Math.max(10, AGENTS_OPENED_A_SECOND / size.agentsPerStream)),
  };
  const { ms } = await load.do<{ ms: number }>("open", { fleet });
  bench.log(`  ${size.agents} agents on ${streams} streams were there after ${(ms / 1_000).toFixed(1)} s`);
  await sleep(2_000);
  if (size.lively === true) await watcher.do("open", { address: replica.grpc, agentIds: CHANGED });
  const ends = size.lively === true ? await silenceOne(load, questions, size) : new Map<string, number>();
  await load.do("figures");
  await watcher.do("figures");
  const usage = async () => ({
    server: await cpuMs([replica.pid]),
    storage: await stage.cpuMs(),
    wal: Number((await questions.ask<{ bytes: string }>("SELECT wal_bytes AS bytes FROM pg_stat_wal"))[0]?.bytes),
    at: performance.now(),
  });
  const { rounds = 1 } = size;
  const before = await usage();
  const [marks, seen] = [[before], [] as FleetFigures[]];
  for (let round = 0; round < rounds; round += 1) {
    await sleep((size.seconds * 1_000) / rounds);
    marks.push(await usage());
    seen.push(await load.do<FleetFigures>("figures"));
  }
  const after = marks.at(-1) ?? before;
  const acknowledged = seen.reduce((sum, figures) => sum + figures.acknowledged, 0);
  const refused = seen.reduce((sum, figures) => sum + figures.refused, 0);
  const ended = seen.at(-1)?.ended ?? 0;
  const slowestMs = Math.max(...seen.map((figures) => figures.slowestMs));
  /** Microseconds for each beat, by round. */
  const costs = (which: "server" | "storage") =>
    seen.map((figures, round) => {
      const used = (marks[round + 1]?.[which] ?? Number.NaN) - (marks[round]?.[which] ?? Number.NaN);
      return (used * 1_000) / (figures.acknowledged * size.agentsPerStream);
    });
  const residentMiB = (await residentBytes(replica.pid)) / 2 ** 20;
  const lively = size.lively === true ? await livelyFigures(bench, watcher, ends) : undefined;
  const [row] = await questions.ask<{ lost: number }>(
    "SELECT count(*)::integer AS lost FROM agent_transitions WHERE cause = 'lease_expired' AND agent_id <> ALL ($1::text[])",
    [[...ends.keys()]],
  );
  await load.do("close");
  await watcher.do("close");
  const beats = acknowledged * size.agentsPerStream;
  const took = after.at - before.at;
  return {
    openedS: ms / 1_000,
    lost: row?.lost ?? Number.NaN,
    refused,
    ended,
    beatsPerSecond: (beats / took) * 1_000,
    serverUs: costs("server"),
    storageUs: costs("storage"),
    serverShare: (after.server - before.server) / took,
    storageShare: (after.storage - before.storage) / took,
    walPerBeat: (after.wal - before.wal) / beats,
    slowestMs,
    residentMiB,
    ...(lively === undefined ? {} : { lively }),
  };
}

/**
 * Cuts off the streams of the first claw. Returns the lease expiry of each of its agents, in microseconds since 1970.
 */
async function silenceOne(load: Worker, questions: Questions, size: FleetSize): Promise<Map<string, number>> {
  await load.do("silence", { streams: Math.max(1, AGENTS_PER_CLAW / size.agentsPerStream) });
  // Wait until pending beats are written.
  await sleep(3_000);
  const rows = await questions.ask<{ agent_id: string; ends: string }>(
    `SELECT agent_id, (extract(epoch FROM lease_expires_at) * 1000000)::bigint AS ends
     FROM agent_states WHERE claw_identifier = 'claw-0' AND agent_id LIKE $1`,
    [`${PREFIX}%`],
  );
  return new Map(rows.map(({ agent_id, ends }) => [agent_id, Number(ends)]));
}

async function livelyFigures(bench: BenchRun, watcher: Worker, ends: ReadonlyMap<string, number>): Promise<Lively> {
  const figures = await watcher.do<FleetNews>("figures");
  let known = figures.ends;
  const deadline = performance.now() + LAST_END_MS;
  for (; known.length < ends.size && performance.now() < deadline; await sleep(1_000))
    known = (await watcher.do<FleetNews>("figures")).ends;
  if (figures.failure !== undefined) bench.note(figures.failure);
  if (known.length < ends.size) bench.note(`the watcher got ${known.length} of ${ends.size} expired leases`);
  const leaseEnd = new Latency();
  for (const { agentId, knownAt } of known) {
    const end = ends.get(agentId);
    if (end !== undefined) leaseEnd.record((knownAt - end) / 1_000);
  }
  const { news, answer, getFleet, listAgents } = figures;
  return { news, answer, getFleet, listAgents, leaseEnd: leaseEnd.figures };
}

async function seedFleet(stage: Stage, url: string, count: number): Promise<void> {
  await using questions = await stage.questions(url);
  for (let from = 0; from < count; from += SEEDED_AT_ONCE) {
    await questions.ask(
      `WITH who AS (
         SELECT $3 || n AS name, 'claw-' || ((n - 1) / $4::integer) AS claw FROM generate_series($1::integer + 1, $2::integer) n
       ), u AS (INSERT INTO users (username) SELECT name FROM who RETURNING id, username),
       a AS (
         INSERT INTO agents (user_id, agent_id, claw_identifier, created_at, status_changed_at, revision)
         SELECT u.id, u.username, who.claw, clock_timestamp(), clock_timestamp(), c.revision
         FROM u JOIN who ON who.name = u.username, revision_counter c
         RETURNING id, revision
       )
       INSERT INTO agent_liveness (agent, revision, epoch, lease_expires_at)
       SELECT id, revision, nextval('agent_epochs'), clock_timestamp() + interval '2 hours' FROM a`,
      [from, Math.min(count, from + SEEDED_AT_ONCE), PREFIX, AGENTS_PER_CLAW],
    );
  }
  await seedAgents(stage, url, { prefix: "changed-", count: CHANGED.length, claw: "changed-", leaseMs: 7_200_000 });
  await questions.ask("VACUUM ANALYZE");
  await stage.checkpoint();
}

async function onAllCores(questions: Questions, pids: readonly number[]): Promise<void> {
  if (CORES === undefined) return;
  const [row] = await questions.ask<{ pid: number }>(
    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'",
  );
  const parent = /\) \S+ (\d+)/.exec(readFileSync(`/proc/${row?.pid}/stat`, "utf8"))?.[1];
  const cores = `0-${availableParallelism() - 1}`;
  for (const pid of [...pids, ...(await family(Number(parent)))])
    spawnSync("taskset", ["-a", "-c", "-p", cores, String(pid)]);
}

/** This program simulates many callers: with its watcher it needs more streams than one caller may have. */
function envFor(streams: number): Readonly<Record<string, string>> {
  return streams < DEFAULT_STREAMS_PER_CALLER ? {} : { HARBORFORGE_STREAMS_PER_CALLER: String(2 * streams) };
}
