import { setTimeout as sleep } from "node:timers/promises";
import { cpuMs } from "../harness/cpu.ts";
import { figure } from "../harness/figures.ts";
import { Worker } from "../harness/processes.ts";
import { informs, loadShare, type Measure, type Scenario } from "../harness/scenario.ts";
import { type Questions, type Stage, seedAgents } from "../harness/stage.ts";
import { Latency } from "../load/latency.ts";
import type { SeenEnd } from "../load/lease-watch.ts";
import type { BeatingStream } from "../load/silence.ts";

/** Shorter than the default, so that leases expire during the measurement. */
const INTERVAL_MS = 3_000;
const LEASE_MS = 3 * INTERVAL_MS;
const CLAWS = 180;
const PER_CLAW = 50;
/** Agents that have a stream each. */
const SINGLES = 500;
/** The agents of the claw that falls silent as a whole, whose leases expire at once. */
const LARGE = 500;
const WATCHERS = 3;
/** The time over which streams fall silent one after the other: too few at once for the brake. */
const SILENCING_S = 10;
const CLAWS_A_SECOND = 2;
const SINGLES_A_SECOND = 45;
const LOOK_MS = 400;

/** A fleet of 10 000 agents, some of which fall silent: the time from the expiry of a lease until its watchers know. */
export const leaseEnds: Scenario = {
  name: "lease-ends",
  title: "Time from the end of a lease to its watchers",
  async run(stage, bench) {
    const url = await stage.database("bench_lease_ends");
    const streams = await seedFleet(stage, url);
    await using undo = new AsyncDisposableStack();
    const replica = undo.use(await stage.replica(url, { HARBORFORGE_HEARTBEAT_INTERVAL: `${INTERVAL_MS}ms` }));
    const load = undo.use(new Worker("load/silence.ts", "load"));
    const watching = undo.use(new Worker("load/lease-watch.ts", "load"));
    await watching.do("open", { address: replica.grpc, watchers: WATCHERS });
    await load.do("open", { address: replica.grpc, streams: Object.values(streams).flat() });
    const questions = undo.use(await stage.questions(url));
    const ends = lookAtEnds(questions);
    undo.defer(() => ends.stop());
    // All agents have sent a beat, and beats have spread.
    await sleep(INTERVAL_MS + 1_000);
    const usage = async () => ({ load: await cpuMs([load.pid, watching.pid]), at: performance.now() });
    const before = await usage();
    const silent = new Set<string>();
    const silence = async (some: readonly BeatingStream[]) => {
      for (const { agentIds } of some) for (const agentId of agentIds) silent.add(agentId);
      await load.do("silence", { names: some.map(({ name }) => name) });
    };
    for (let second = 0; second < SILENCING_S; second += 1) {
      const begin = performance.now();
      await silence(streams.claws.slice(second * CLAWS_A_SECOND, (second + 1) * CLAWS_A_SECOND));
      await silence(streams.singles.slice(second * SINGLES_A_SECOND, (second + 1) * SINGLES_A_SECOND));
      await sleep(Math.max(0, 1_000 - (performance.now() - begin)));
    }
    await silence(streams.large);
    await sleep(LEASE_MS + 2_000);
    const after = await usage();
    await ends.stop();
    const { ends: seen } = await watching.do<{ ends: SeenEnd[] }>("take");
    await load.do("close");
    const reported = new Set(seen.map(({ agentId }) => agentId));
    const others = [...reported].filter((agentId) => !silent.has(agentId)).length;
    if (others > 0) bench.note(`${others} agents went offline although they sent heartbeats`);
    const missing = silent.size * WATCHERS - (seen.length - others * WATCHERS);
    if (missing > 0) bench.note(`${missing} of ${silent.size * WATCHERS} expiries were not reported in time`);
    const rounds = bench.rounds;
    const some = seen.filter(({ agentId }) => silent.has(agentId) && !agentId.startsWith("large-"));
    const large = seen.filter(({ agentId }) => agentId.startsWith("large-"));
    return [
      measure("lease end → watchers know, p99", lateMs(some, ends.known, "knownAt"), rounds, 99, true),
      measure("lease end → watchers know, p50", lateMs(some, ends.known, "knownAt"), rounds, 50),
      measure("lease end → committed, p50", lateMs(some, ends.known, "committedAt"), rounds, 50),
      measure("lease end → committed, p99", lateMs(some, ends.known, "committedAt"), rounds, 99),
      measure(
        `a claw of ${LARGE} falls silent → watchers know, p99`,
        lateMs(large, ends.known, "knownAt"),
        1,
        99,
        true,
      ),
      informs("leases that ended", "", [silent.size]),
      loadShare(bench, { "lease ends": [(after.load - before.load) / (after.at - before.at)] }),
    ];
  },
};

async function seedFleet(stage: Stage, url: string) {
  await seedAgents(stage, url, { prefix: "agent-", count: CLAWS * PER_CLAW, claw: "claw-", perClaw: PER_CLAW });
  await seedAgents(stage, url, { prefix: "single-", count: SINGLES, claw: "singles-", perClaw: PER_CLAW });
  await seedAgents(stage, url, { prefix: "large-", count: LARGE, claw: "large-", perClaw: LARGE });
  const stream = (prefix: string, claw: string, first: number, count: number): BeatingStream => ({
    name: `${prefix}${first}`,
    claw,
    agentIds: Array.from({ length: count }, (_, n) => `${prefix}${first + n + 1}`),
  });
  return {
    claws: Array.from({ length: CLAWS }, (_, n) => stream("agent-", `claw-${n}`, n * PER_CLAW, PER_CLAW)),
    singles: Array.from({ length: SINGLES }, (_, n) => stream("single-", `singles-${Math.floor(n / PER_CLAW)}`, n, 1)),
    large: [stream("large-", "large-0", 0, LARGE)],
  };
}

/** Reads lease expiries shortly before they happen, in microseconds since 1970. */
function lookAtEnds(questions: Questions) {
  const known = new Map<string, number>();
  const stopped = new AbortController();
  const looking = (async () => {
    while (!stopped.signal.aborted) {
      const rows = await questions.ask<{ agent_id: string; ends: string }>(
        `SELECT agent_id, (extract(epoch FROM lease_expires_at) * 1000000)::bigint AS ends FROM agent_states
         WHERE status <> 'offline' AND lease_expires_at < clock_timestamp() + $1::integer * interval '1 millisecond'`,
        [LEASE_MS / 3],
      );
      for (const { agent_id, ends } of rows) known.set(agent_id, Number(ends));
      await sleep(LOOK_MS);
    }
  })();
  // `stop` reports the failure.
  looking.catch(() => undefined);
  return {
    known,
    stop: async () => {
      stopped.abort();
      await looking;
    },
  };
}

/** In the order of expiry. */
function lateMs(
  seen: readonly SeenEnd[],
  ends: ReadonlyMap<string, number>,
  when: "committedAt" | "knownAt",
): readonly number[] {
  return seen
    .flatMap((one) => {
      const end = ends.get(one.agentId);
      return end === undefined ? [] : [{ end, late: (one[when] - end) / 1_000 }];
    })
    .sort((one, other) => one.end - other.end)
    .map(({ late }) => late);
}

/** Rounds are equal, consecutive parts of the events. */
function measure(name: string, late: readonly number[], rounds: number, percent: 50 | 99, judged = false): Measure {
  const size = Math.ceil(late.length / rounds);
  const values = Array.from({ length: rounds }, (_, round) => {
    const latency = new Latency();
    for (const ms of late.slice(round * size, (round + 1) * size)) latency.record(ms);
    const { count, p50Ms, p99Ms } = latency.figures;
    if (count === 0) return Number.NaN;
    return percent === 50 ? p50Ms : p99Ms;
  });
  return { name, unit: "ms", figure: figure(values), ...(judged ? { must: 250, aim: 100 } : {}) };
}
