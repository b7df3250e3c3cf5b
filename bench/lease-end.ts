/**
 * How long after the end of a lease its watchers know: real processes and sockets, heartbeat streams and watches over
 * gRPC. Claws of a fleet are killed one after the other, single streams end at random moments, then the largest claw dies
 * as a whole; never so many at once that the brake engages. Lateness is the watcher's clock, on the same machine, minus
 * the end of the lease as the database has it. Needs nothing but `node bench/lease-end.ts`; see --help.
 */
import { once } from "node:events";
import { loadavg } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import pg from "pg";
import { HeartbeatStream } from "../src/client/heartbeat-stream.ts";
import { watchAgents } from "../src/client/node-watch.ts";
import { createServiceClients } from "../src/client/transport.ts";
import { Random } from "../test/chaos/random.ts";
import { World } from "../test/chaos/world.ts";

const HELP = `node bench/lease-end.ts [options]
  --agents N     of claws that beat by one stream each (default 9000)
  --claws N      of those (default 180)
  --singles N    agents with a stream of their own each (default 500)
  --large N      agents of the claw that dies as a whole (default 500)
  --interval MS  the heartbeat interval (default 5000)
  --seconds N    over which claws and single streams end (default 30)
  --watchers N   watches of the whole fleet (default 3)`;

const { values } = parseArgs({
  options: {
    agents: { type: "string", default: "9000" },
    claws: { type: "string", default: "180" },
    singles: { type: "string", default: "500" },
    large: { type: "string", default: "500" },
    interval: { type: "string", default: "5000" },
    seconds: { type: "string", default: "30" },
    watchers: { type: "string", default: "3" },
    help: { type: "boolean", default: false },
  },
});

/** Claws of one lease that may die and are no mass silence: a fifth, less something. */
const CALM_SHARE = 0.15;
const PER_SINGLE_CLAW = 50;

/** What a watcher saw: who went offline, when it was committed, when the watcher knew. Microseconds since 1970. */
interface Seen {
  readonly agentId: string;
  readonly committedAt: number;
  readonly knownAt: number;
}

function nowMicros(): number {
  return (performance.timeOrigin + performance.now()) * 1_000;
}

/** A thread of its own: what the fleet costs this process must not make the watcher late. */
async function watch({ address, watchers }: { address: string; watchers: number }): Promise<void> {
  const follow = async (first: boolean): Promise<void> => {
    for await (const event of watchAgents({ address })) {
      const knownAt = nowMicros();
      if (event.kind === "snapshot" && first) parentPort?.postMessage("ready");
      if (event.kind !== "changes") continue;
      const seen = event.changes.flatMap(({ agent: { agentId }, transition: { cause, occurredAt } }): Seen[] =>
        cause === "lease_expired" ? [{ agentId, committedAt: occurredAt, knownAt }] : [],
      );
      if (seen.length > 0) parentPort?.postMessage(seen);
    }
  };
  await Promise.all(Array.from({ length: watchers }, (_, index) => follow(index === 0)));
}

function percentiles(name: string, lateMs: number[]): void {
  const sorted = [...lateMs].sort((a, b) => a - b);
  const at = (share: number) =>
    (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(0);
  const line = `p50 ${at(0.5)} ms  p99 ${at(0.99)} ms  max ${at(1)} ms  min ${at(0)} ms  (${sorted.length})`;
  console.log(`${name.padEnd(34)} ${line}`);
}

async function main(): Promise<void> {
  const intervalMs = Number(values.interval);
  const leaseMs = 3 * intervalMs;
  const singles = Number(values.singles);
  const large = Number(values.large);
  const singleClaws = Math.ceil(singles / PER_SINGLE_CLAW);
  await using undo = new AsyncDisposableStack();
  const world = undo.use(
    await World.start({
      replicas: 1,
      claws: Number(values.claws),
      agents: Number(values.agents),
      intervalMs,
      onLine: (line) => console.log(line),
    }),
  );
  const port = world.replicas[0]?.process.port;
  if (port === undefined) throw new Error("the replica does not serve");
  const address = `127.0.0.1:${port}`;
  const clients = undo.use(createServiceClients({ address }));
  const enrol = async (agentId: string, clawIdentifier: string) =>
    await clients.users.createUser({ username: agentId, displayName: agentId, agentId, clawIdentifier });
  const extra = [
    ...Array.from({ length: singles }, (_, n) => ({ agentId: `single-${n}`, claw: `singles-${n % singleClaws}` })),
    ...Array.from({ length: large }, (_, n) => ({ agentId: `large-${n}`, claw: "large" })),
  ];
  for (let n = 0; n < extra.length; n += 50)
    await Promise.all(extra.slice(n, n + 50).map(({ agentId, claw }) => enrol(agentId, claw)));

  const streamOf = (clawIdentifier: string, instanceId: string, agentIds: readonly string[]): HeartbeatStream => {
    const stream = new HeartbeatStream({ clients, clawIdentifier, instanceId });
    for (const agentId of agentIds) stream.add(agentId);
    return stream;
  };
  for (const claw of world.claws) claw.start();
  const alone = extra.slice(0, singles).map(({ agentId, claw }) => ({
    agentId,
    stream: streamOf(claw, agentId, [agentId]),
  }));
  const one = streamOf(
    "large",
    "large",
    extra.slice(singles).map(({ agentId }) => agentId),
  );
  undo.defer(async () => {
    await Promise.all([one, ...alone.map(({ stream }) => stream)].map((stream) => stream.close()));
  });

  const seen: Seen[] = [];
  const worker = new Worker(new URL(import.meta.url), {
    workerData: { address, watchers: Number(values.watchers) },
  });
  undo.defer(async () => void (await worker.terminate()));
  await once(worker, "message");
  worker.on("message", (more: Seen[]) => seen.push(...more));

  const database = new pg.Client({ connectionString: world.database.url });
  await database.connect();
  undo.defer(() => database.end());
  // The last end of each lease that anybody could see in the database; read a moment before it comes.
  const ends = new Map<string, number>();
  const lookAtLeases = setInterval(() => {
    void database
      .query<{ agent_id: string; ends: string }>(
        `SELECT agent_id, (extract(epoch FROM lease_expires_at) * 1000000)::bigint AS ends FROM agent_states
         WHERE lease_expires_at < clock_timestamp() + $1::integer * interval '1 millisecond'`,
        [Math.round(leaseMs / 3)],
      )
      .then(({ rows }) => {
        for (const row of rows) ends.set(row.agent_id, Number(row.ends));
      });
  }, 500);
  undo.defer(() => clearInterval(lookAtLeases));

  // Everybody has beaten a few times, and first intervals have spread.
  await sleep(2 * leaseMs);
  console.log(`the fleet beats; machine load ${loadavg().map((load) => load.toFixed(1))}`);
  const random = new Random(1);
  const seconds = Number(values.seconds);
  const calm = Math.floor((CALM_SHARE * (world.claws.length + singleClaws + 1)) / (leaseMs / 1_000));
  const mortal = world.claws.slice(0, calm * seconds);
  const doomed = alone.slice(0, Math.floor(singles * 0.9));
  const stopped = new Set(doomed.map(({ agentId }) => agentId));
  for (let second = 0; second < seconds; second++) {
    const turn = performance.now();
    for (const claw of mortal.slice(second * calm, (second + 1) * calm)) {
      await sleep(random.between(0, 800 / calm));
      for (const agentId of claw.agentIds) stopped.add(agentId);
      await claw.kill();
    }
    const share = Math.ceil(doomed.length / seconds);
    await Promise.all(doomed.slice(second * share, (second + 1) * share).map(({ stream }) => stream.close()));
    await sleep(Math.max(0, 1_000 - (performance.now() - turn)));
  }
  await sleep(leaseMs + 2_000);
  const first = seen.splice(0);
  console.log(`machine load ${loadavg().map((load) => load.toFixed(1))}; the large claw dies`);
  await one.close();
  await sleep(leaseMs + 3_000);
  console.log(`machine load ${loadavg().map((load) => load.toFixed(1))}`);

  const wanted = stopped.size * Number(values.watchers);
  console.log(
    `${first.length} of ${wanted} ends were told, ${seen.length} of ${large * Number(values.watchers)} of the claw`,
  );
  const late = (some: readonly Seen[], when: (one: Seen) => number) =>
    some.flatMap((one) => {
      const end = ends.get(one.agentId);
      return end === undefined ? [] : [(when(one) - end) / 1_000];
    });
  for (const [name, some] of [
    ["one after the other", first],
    ["the large claw", seen],
  ] as const) {
    percentiles(
      `${name}: committed`,
      late(some, ({ committedAt }) => committedAt),
    );
    percentiles(
      `${name}: watchers know`,
      late(some, ({ knownAt }) => knownAt),
    );
  }
  const strangers = first.filter(({ agentId }) => !stopped.has(agentId));
  console.log(
    `${strangers.length} of agents that kept beating; brake ${(await clients.agents.getFleet({})).brake?.engaged}`,
  );
}

// What was started is ended on the way out.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));

if (!isMainThread) await watch(workerData);
else if (values.help) console.log(HELP);
else await main();
