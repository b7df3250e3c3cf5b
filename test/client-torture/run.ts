import { chmod, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { createServiceClients, transitionView } from "harborforge-agents-client";
import { TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { migrate } from "../../src/storage/migrations.ts";
import { ChaosDatabase } from "../chaos/chaos-database.ts";
import { Random } from "../chaos/random.ts";
import { ReplicaProcess } from "../chaos/replica-process.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { temporaryFolder } from "../support/owned-process.ts";
import { FAULTS, type FaultName, type Place } from "./faults.ts";
import { Host, type Sample } from "./host.ts";

export interface TortureOptions {
  readonly seed: number;
  /** The time in which faults begin. */
  readonly forMs: number;
  readonly replicas: number;
  readonly agentsPerHost: number;
  readonly intervalMs: number;
  /** The mean time between two reports of an agent. */
  readonly everyMs: number;
  /** Stalls and freezes of a host take up to so long. */
  readonly longestStallMs: number;
  readonly faults: readonly FaultName[];
  /** After a fault everything has to work within this. */
  readonly recoverWithinMs: number;
  readonly onLine: (line: string) => void;
  readonly signal?: AbortSignal;
}

export interface TortureResult {
  readonly problems: readonly string[];
  readonly faults: number;
  readonly acknowledged: number;
  /** The longest time after a fault until everything worked again. */
  readonly slowestMs: number;
}

const PAUSE_MS = 500;
const END_WITHIN_MS = 30_000;
/** The tolerated growth of samples over a run, for garbage collection and compiled code. */
const GROWTH_FACTOR = 1.25;
const GROWTH_BYTES = 6 * 1_024 * 1_024;
/** Fewer samples than this prove nothing about growth. */
const FEWEST_SAMPLES = 12;

/** Tortures programs that use the client library. @returns the violations */
export async function runTorture(options: TortureOptions): Promise<TortureResult> {
  const { seed, onLine } = options;
  const random = new Random(seed);
  const problems: string[] = [];
  const began = performance.now();
  const say = (line: string): void => onLine(`${((performance.now() - began) / 1_000).toFixed(1).padStart(7)} ${line}`);
  const onProblem = (problem: string): void => {
    problems.push(problem);
    say(`PROBLEM ${problem}`);
  };
  await using undo = new AsyncDisposableStack();
  const { replicas, proxies, hosts } = await build(options, undo, onProblem);
  await Promise.all(hosts.map((host) => host.ready()));
  say(`seed ${seed}: ${hosts.length} hosts, ${replicas.length} replicas`);

  let count = 0;
  let slowestMs = 0;
  let rounds = 0;
  const recovered = async (what: string): Promise<void> => {
    for (const proxy of proxies) proxy.mend();
    await Promise.all(
      hosts.map(async (host) => {
        if (!host.isRunning) return;
        const tookMs = await host.probe(options.recoverWithinMs);
        if (tookMs === undefined) onProblem(`${host.name} does not work ${options.recoverWithinMs} ms after: ${what}`);
        else slowestMs = Math.max(slowestMs, tookMs);
        await host.sample(options.recoverWithinMs);
      }),
    );
  };
  await recovered("the start");
  const deadline = performance.now() + options.forMs;
  while (performance.now() < deadline && options.signal?.aborted !== true && hosts.some((host) => host.isRunning)) {
    // The first round runs one after the other, so that a short run has all of them.
    const first = options.faults[rounds];
    const names = first === undefined ? random.sample(options.faults, random.chance(0.5) ? 1 : 2) : [first];
    rounds += 1;
    const places: Place[] = names.map(() => ({
      host: random.pick(hosts),
      proxy: random.pick(proxies),
      proxies,
      replica: random.pick(replicas),
    }));
    const plans = names.map((name, index) => {
      const ms = random.between(0, options.longestStallMs) * random.next();
      return { name, ms, place: places[index] ?? places[0], detail: random.next() };
    });
    const what = plans.map(({ name, ms, place }) => `${name} ${Math.round(ms)} ms (${place?.host.name})`).join(" + ");
    count += plans.length;
    await Promise.all(
      plans.map(({ name, ms, place, detail }) =>
        place === undefined ? undefined : FAULTS[name]({ ...place, ms, detail, longestMs: options.longestStallMs }),
      ),
    );
    const before = performance.now();
    await recovered(what);
    say(`${what}: works after ${Math.round(performance.now() - before)} ms`);
    await sleep(PAUSE_MS);
  }

  await Promise.all(hosts.map((host) => host.end(END_WITHIN_MS)));
  let acknowledged = 0;
  for (const host of hosts) {
    checkGrowth(host, say, onProblem);
    acknowledged += await checkAcknowledged(host, proxies, onProblem);
  }
  return { problems, faults: count, acknowledged, slowestMs };
}

async function build(options: TortureOptions, undo: AsyncDisposableStack, onProblem: (problem: string) => void) {
  const folder = await temporaryFolder("torture");
  undo.defer(() => rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }));
  // Root runs PostgreSQL as another account, which has to enter the folder.
  await chmod(folder, 0o711);
  const dataDir = join(folder, "data");
  await mkdir(dataDir, { mode: 0o711 });
  const database = undo.use(await ChaosDatabase.start(dataDir));
  await migrate(database.url);
  const replicas = Array.from({ length: options.replicas }, (_, index) => {
    const replica = new ReplicaProcess({
      name: `replica ${index + 1}`,
      databaseUrl: () => database.url,
      env: {
        HARBORFORGE_HEARTBEAT_INTERVAL: `${options.intervalMs}ms`,
        HARBORFORGE_FIRST_LEASE: "10m",
        HARBORFORGE_DRAIN_GRACE: "2s",
      },
      logFile: join(folder, `replica-${index + 1}.log`),
      onDied: (how) => onProblem(`replica ${index + 1}: ${how}`),
    });
    undo.use(replica).start();
    return replica;
  });
  const hosts: Host[] = [];
  await Promise.all(replicas.map((replica) => replica.serving()));
  const proxies = await Promise.all(
    replicas.map(async (replica) =>
      undo.use(await FaultProxy.open(() => (replica.port === undefined ? [] : [replica.port]))),
    ),
  );
  const addresses = proxies.map(({ address }) => address);
  using service = createServiceClients({ addresses });
  // The worker gives up on the main thread in half of the stalls.
  const worker = { mainThreadTimeoutMs: Math.max(500, options.longestStallMs / 4) };
  for (const mode of ["main", "worker"] as const) {
    const claw = `claw-${mode}`;
    const agentIds = Array.from({ length: options.agentsPerHost }, (_, index) => `${mode}-${index + 1}`);
    for (const agentId of agentIds) {
      await service.users.createUser({ username: agentId, agentId, clawIdentifier: claw });
    }
    const { everyMs } = options;
    hosts.push(
      undo.use(
        new Host({
          name: `host ${mode}`,
          addresses,
          claw,
          agentIds,
          everyMs,
          worker: mode === "worker" && worker,
          onProblem,
        }),
      ),
    );
  }
  return { replicas, proxies, hosts };
}

function checkGrowth(host: Host, say: (line: string) => void, onProblem: (problem: string) => void): void {
  const { name, samples } = host;
  if (samples.length < FEWEST_SAMPLES) return;
  // The first samples are of a program that is still warming up.
  const quarter = Math.floor(samples.length / 4);
  const early = samples.slice(quarter, 2 * quarter);
  const late = samples.slice(-quarter);
  for (const key of ["bytes", "resources"] as const) {
    const [before, after] = [median(early, key), median(late, key)];
    say(`${name}: ${key} ${before} in the second quarter, ${after} in the last`);
    const allowed = before * GROWTH_FACTOR + (key === "bytes" ? GROWTH_BYTES : 4);
    if (after > allowed) onProblem(`${name}: ${key} grew from ${before} to ${after}`);
  }
}

function median(samples: readonly Sample[], key: keyof Sample): number {
  const values = samples.map((sample) => sample[key]).sort((one, other) => one - other);
  return values[Math.floor(values.length / 2)] ?? 0;
}

/** Checks that every acknowledged report is in the log of transitions. @returns their number */
async function checkAcknowledged(
  host: Host,
  proxies: readonly FaultProxy[],
  onProblem: (problem: string) => void,
): Promise<number> {
  using service = createServiceClients({ addresses: proxies.map(({ address }) => address) });
  let count = 0;
  for (const [agentId, recoveries] of host.acknowledged) {
    const logged = new Set<number>();
    let pageToken = "";
    do {
      const page = await service.agents.listAgentTransitions({ agentId, pageSize: 1_000, pageToken });
      for (const message of page.transitions) {
        if (message.cause !== TransitionCause.REPORT) continue;
        const { exhaustion } = transitionView(message);
        if (exhaustion?.recoveryAt !== undefined) logged.add(exhaustion.recoveryAt.getTime());
      }
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    const lost = recoveries.filter((recoveryAt) => !logged.has(recoveryAt));
    if (lost.length > 0) {
      onProblem(
        `${host.name}: ${lost.length} acknowledged reports of ${agentId} are not in the log, such as ${lost[0]}`,
      );
    }
    count += recoveries.length;
  }
  if (count === 0) onProblem(`${host.name}: nothing was acknowledged`);
  return count;
}
