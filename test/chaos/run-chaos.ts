import { cp } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { makeReleases } from "../support/releases.ts";
import type { Promises } from "./allowance.ts";
import { judge, type Verdict } from "./checks.ts";
import { FAULTS, type PlannedFault } from "./faults.ts";
import { FleetWatcher } from "./fleet-watcher.ts";
import { Observer } from "./observer.ts";
import { Random } from "./random.ts";
import { trace } from "./trace.ts";
import { LogReader } from "./transition-log.ts";
import { World } from "./world.ts";

export interface ChaosOptions {
  readonly seed: number;
  /** The milliseconds in which faults begin; the time until they end comes on top. */
  readonly forMs: number;
  readonly agents: number;
  readonly claws: number;
  /** A lease is three of them. */
  readonly intervalMs: number;
  /** The least number of faults, also if they begin later than `forMs`. Default: 0. */
  readonly leastFaults?: number;
  /** Names of `FAULTS`. */
  readonly faults: readonly string[];
  /** The maximum of concurrent faults. */
  readonly atOnce: number;
  /** The tolerated time of an expiry after its lease on a busy machine. */
  readonly slackMs: number;
  /** Reports a second, over all agents. */
  readonly reportsPerSecond: number;
  /** The folder of the replicas' logs. Default: not kept. */
  readonly keepLogsIn?: string;
  readonly onLine: (line: string) => void;
  readonly signal?: AbortSignal;
  /** Each restart of a replica takes the other of two releases: this checkout, and one that follows it. */
  readonly mixed?: boolean;
}

export interface ChaosResult extends Verdict {
  readonly transitions: number;
  /** Those that replicas of the next release made by reports. */
  readonly transitionsOfNext: number;
  readonly faults: ReadonlyMap<string, number>;
  /** The changes that a watcher got with a cause that its replica did not know; only with `mixed`. */
  readonly unknownCauses: number;
  /** Of all claws: rejected beats by reason. */
  readonly refusals: ReadonlyMap<string, number>;
  /** Of each violation, with its time and the faults that were near. */
  readonly sentences: readonly string[];
  /** The reports and transitions of the agent of the first violation, if there is one. */
  readonly trace: readonly string[];
  /** The number of violations by the kinds of faults near them. */
  readonly near: ReadonlyMap<string, number>;
}

const REPLICAS = 3;
/** The tolerated time of a run beyond its faults: start, last recoveries, checks. */
const PATIENCE_MS = 180_000;
const TICK_MS = 50;

/**
 * Runs a fleet on three replicas while faults from a seed hit everything, then checks the log by the sent
 * messages and the faults. Starts and ends all its processes.
 *
 * @throws when it cannot start, or does not end in time
 */
export async function runChaos(options: ChaosOptions): Promise<ChaosResult> {
  const { intervalMs, onLine } = options;
  const begin = performance.now();
  await using undo = new AsyncDisposableStack();
  const releases = options.mixed === true ? undo.use(await makeReleases()) : undefined;
  const programOf = releases && ((start: number) => (start % 2 === 0 ? releases.current : releases.next));
  const world = undo.use(await World.start({ ...options, programOf, replicas: REPLICAS }));
  onLine(`${took(begin)} to start ${REPLICAS} replicas and ${options.agents} agents in ${options.claws} claws`);
  await using reader = new LogReader(() => world.database.url);
  const observer = new Observer(reader, 0n);
  const ports = () => world.replicas.flatMap(({ process: { port } }) => (port === undefined ? [] : [port]));
  const watcher = releases && undo.use(await FleetWatcher.open(ports));
  const aborted = new Promise<never>((_, reject) => {
    const end = () => reject(new Error("the run was stopped, or did not come to its end in time"));
    setTimeout(end, options.forMs + PATIENCE_MS).unref();
    options.signal?.addEventListener("abort", end);
  });
  aborted.catch(() => undefined);
  const chatter = startChatter(world, options);
  try {
    for (const claw of world.claws) claw.start();
    const leaseMs = 3 * intervalMs;
    await Promise.race([aborted, everybodyIsBack(world, leaseMs)]);
    onLine(`${took(begin)} until every agent beat`);
    await Promise.race([aborted, hitWithFaults(world, options)]);
    onLine(`${took(begin)} until the last fault was over`);
    await Promise.race([aborted, everybodyIsBack(world, leaseMs)]);
    // Later messages would change the evidence while it is read.
    clearInterval(chatter);
    // Wrong or late expiries show by then.
    await Promise.race([aborted, sleep(leaseMs * 1.2)]);
    const endedAt = Date.now();
    const observation = await Promise.race([aborted, observer.finish()]);
    const promises: Promises = { leaseMs, slackMs: options.slackMs, claws: options.claws };
    const clawOf = new Map(world.claws.flatMap(({ agentIds, index }) => agentIds.map((agentId) => [agentId, index])));
    const verdict = judge({
      observation,
      streams: world.ledger.streams,
      log: world.log,
      clawOf,
      promises,
      endedAt,
    });
    const first = verdict.violations.find(({ agentId }) => agentId !== undefined);
    const sentences = verdict.violations.map(({ at, invariant, agentId, what }) => {
      const who = agentId === undefined ? "" : `${agentId}: `;
      return `${world.log.second(at)} s, ${invariant}: ${who}${what}. Near: ${world.log.around(at, 2 * leaseMs)}`;
    });
    sentences.push(...((await watcher?.finish(observation.agents)) ?? []));
    return {
      ...verdict,
      unknownCauses: watcher?.unknownCauses ?? 0,
      transitions: observation.transitions.length,
      transitionsOfNext: observation.transitions.filter(({ ofNext }) => ofNext).length,
      faults: count(world.log.faults.map(({ kind }) => kind)),
      refusals: sum(world.claws.map(({ refusals }) => refusals)),
      sentences,
      trace:
        first?.agentId === undefined
          ? []
          : trace(first.agentId, first.at, 4 * leaseMs, world.ledger.streams, observation.transitions, world.log),
      near: count(
        verdict.violations.map(({ at }) => {
          const kinds = new Set(world.log.near(at, 2 * leaseMs).map(({ kind }) => kind));
          return [...kinds].sort().join(" + ") || "nothing";
        }),
      ),
    };
  } finally {
    clearInterval(chatter);
    await observer.stop();
    if (options.keepLogsIn !== undefined) {
      const to = options.keepLogsIn;
      const filter = (path: string) => path === world.folder || path.endsWith(".log");
      await cp(world.folder, to, { recursive: true, filter });
    }
  }
}

function startChatter(world: World, { seed, reportsPerSecond }: ChaosOptions): NodeJS.Timeout {
  const random = new Random(seed ^ 0x5eed);
  return setInterval(() => {
    for (let owed = (reportsPerSecond * TICK_MS) / 1_000; owed > 0; owed -= 1) {
      if (random.chance(owed)) random.pick(world.claws).chatter(random);
    }
  }, TICK_MS);
}

/** Each stream of a running claw got an acknowledgement since; checked by the ledger, not by the service. */
async function everybodyIsBack(world: World, leaseMs: number): Promise<void> {
  const since = Date.now();
  const deadline = since + 4 * leaseMs + 10_000;
  for (;;) {
    const waiting = new Set(world.claws.filter(({ running }) => running).map(({ identifier }) => identifier));
    for (const { seat, messages } of world.ledger.streams) {
      const heard = messages.some(({ ackedAt, sentAt }) => ackedAt !== undefined && sentAt >= since);
      if (heard) waiting.delete(seat.slice(0, seat.indexOf("/")));
    }
    if (waiting.size === 0) return;
    if (Date.now() > deadline) {
      world.log.accident(`not heard though nothing is in the way any more: ${[...waiting].join(", ")}`);
      return;
    }
    await sleep(TICK_MS);
  }
}

async function hitWithFaults(world: World, options: ChaosOptions): Promise<void> {
  const random = new Random(options.seed);
  const leaseMs = 3 * options.intervalMs;
  const underWay = new Set<{ plan: PlannedFault; done: Promise<void> }>();
  const until = performance.now() + options.forMs;
  // All kinds once, in an order of the seed, before any repeats: a short run has as many kinds as possible.
  let bag: string[] = [];
  let begun = 0;
  const goesOn = () => performance.now() < until || begun < (options.leastFaults ?? 0);
  while (goesOn() && options.signal?.aborted !== true) {
    if (bag.length === 0) bag = random.sample(options.faults, options.faults.length);
    const kind = bag.shift() ?? "";
    const plan = planOf(
      kind,
      world,
      random,
      leaseMs,
      [...underWay].map((one) => one.plan),
    );
    // Its targets are in use: it comes last. Otherwise faults of all replicas would hardly ever run.
    if (plan === undefined) bag.push(kind);
    else {
      const entry = { plan, done: plan.run().finally(() => underWay.delete(entry)) };
      underWay.add(entry);
      begun += 1;
      while (underWay.size >= options.atOnce) await Promise.race([...underWay].map(({ done }) => done));
    }
    await sleep(random.between(0.05, 0.7) * leaseMs);
  }
  await Promise.all([...underWay].map(({ done }) => done));
}

/** Undefined when its targets are in use by another fault. */
function planOf(
  kind: string,
  world: World,
  random: Random,
  leaseMs: number,
  inHand: readonly PlannedFault[],
): PlannedFault | undefined {
  const claws = world.claws.filter((claw) => claw.running && !inHand.some((other) => other.claws.includes(claw)));
  const replicas = world.replicas.filter((replica) => !inHand.some((other) => other.replicas.includes(replica)));
  const plan = FAULTS[kind]?.({ world, random, leaseMs, claws, replicas });
  if (plan === undefined) throw new RangeError(`no such fault: ${kind}; there are ${Object.keys(FAULTS).join(", ")}`);
  const free =
    plan.replicas.every((replica) => replicas.includes(replica)) && plan.claws.every((claw) => claws.includes(claw));
  const database = !plan.database || inHand.every((other) => !other.database);
  return free && database && !plan.idle ? plan : undefined;
}

function took(since: number): string {
  return `${((performance.now() - since) / 1_000).toFixed(1)} s`;
}

function count(words: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return counts;
}

function sum(all: readonly ReadonlyMap<string, number>[]): Map<string, number> {
  const sums = new Map<string, number>();
  for (const counts of all) for (const [word, times] of counts) sums.set(word, (sums.get(word) ?? 0) + times);
  return sums;
}
