// Runs a fleet on one replica for a long time, while claws come and go and services call. Checks that memory and open
// files do not grow. See --help.
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { createServiceClients } from "harborforge-agents-client";
import { callErrorOf, watchThrough } from "harborforge-agents-client/internal";
import { Random } from "../test/chaos/random.ts";
import { World } from "../test/chaos/world.ts";

const HELP = `npm run soak -- [options]
  --minutes N      how long (default 20)
  --agents N       on the streams of all claws (default 20000)
  --claws N        (default 40)
  --interval MS    the heartbeat interval (default 5000)
  --reports N      reports a second over all agents (default 50)
  --every S        seconds between two samples (default 10)
  --growth SHARE   allowed growth of memory from the second to the last sixth (default 0.15)
Exit codes: 0 memory and open files did not grow, and no agent went offline; 1 otherwise.`;

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "20" },
    agents: { type: "string", default: "20000" },
    claws: { type: "string", default: "40" },
    interval: { type: "string", default: "5000" },
    reports: { type: "string", default: "50" },
    every: { type: "string", default: "10" },
    growth: { type: "string", default: "0.15" },
    help: { type: "boolean", default: false },
  },
});

interface Sample {
  readonly atS: number;
  readonly residentMiB: number;
  readonly files: number;
}

/** The allowed difference in open files: pools open and close connections. */
const FILES_SLACK = 20;
/** The intervals of claws that disconnect, of watches, and of calls, in milliseconds. */
const CHURN_MS = 5_000;
const WATCH_MS = 2_000;
const CALL_MS = 200;
const TICK_MS = 50;

/** Calls and watches that the service rejected temporarily. */
let refused = 0;

/** The timeout of an orderly stop after a signal, in milliseconds. */
const STOP_MS = 30_000;

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    stop.abort();
    setTimeout(() => process.exit(1), STOP_MS).unref();
  });
}

if (values.help) console.log(HELP);
else process.exit(await main());

async function main(): Promise<number> {
  const forMs = Number(values.minutes) * 60_000;
  await using world = await World.start({
    replicas: 1,
    claws: Number(values.claws),
    agents: Number(values.agents),
    intervalMs: Number(values.interval),
    onLine: (line) => console.log(line),
  });
  const [replica] = world.replicas;
  const port = replica?.process.port;
  if (replica === undefined || port === undefined) throw new Error("the replica does not serve");
  for (const claw of world.claws) claw.start();

  const over = within(forMs, stop.signal);
  const random = new Random(1);
  const samples: Sample[] = [];
  const begin = performance.now();
  const report = setInterval(() => {
    const perTick = (Number(values.reports) * TICK_MS) / 1_000;
    for (let owed = perTick; owed > 0; owed -= 1) if (random.chance(owed)) random.pick(world.claws).chatter(random);
  }, TICK_MS);
  const sampling = repeat(Number(values.every) * 1_000, over, async () => {
    const taken = await replica.process.sample();
    if (taken === undefined) return;
    const sample = {
      atS: Math.round((performance.now() - begin) / 1_000),
      residentMiB: taken.residentBytes / 1_048_576,
      files: taken.files,
    };
    samples.push(sample);
    console.log(`${String(sample.atS).padStart(6)} s  ${words(sample)}`);
  });
  await Promise.all([sampling, churn(world, random, over), watches(port, over), calls(port, over)]);
  clearInterval(report);

  const away = world.log.accidents.map(({ what }) => what);
  return judge(samples, away);
}

/** The first sixth is a warm-up: it is shown but not compared. */
function judge(samples: readonly Sample[], accidents: readonly string[]): number {
  const sixth = Math.max(1, Math.floor(samples.length / 6));
  const part = (index: number) => average(samples.slice(index * sixth, (index + 1) * sixth));
  const [first, second, middle, last] = [part(0), part(1), part(3), average(samples.slice(-sixth))];
  console.log(`first   ${words(first)}\nsecond  ${words(second)}\nmiddle  ${words(middle)}\nlast    ${words(last)}`);
  if (refused > 0) console.log(`${refused} calls and watches were rejected temporarily`);
  for (const what of accidents) console.log(`ACCIDENT ${what}`);
  const grown = last.residentMiB / second.residentMiB - 1;
  const files = last.files - second.files;
  const flat = grown <= Number(values.growth) && files <= FILES_SLACK;
  console.log(`memory ${(grown * 100).toFixed(1)} %, open files ${files >= 0 ? "+" : ""}${Math.round(files)}`);
  const failed = flat && accidents.length === 0 ? 0 : 1;
  console.log(`${1 - failed} passed, ${failed} failed`);
  return failed;
}

function average(samples: readonly Sample[]): Sample {
  const mean = (read: (sample: Sample) => number) => samples.reduce((sum, one) => sum + read(one), 0) / samples.length;
  return { atS: mean(({ atS }) => atS), residentMiB: mean((one) => one.residentMiB), files: mean((one) => one.files) };
}

function words({ residentMiB, files }: Sample): string {
  return `${residentMiB.toFixed(0).padStart(5)} MiB resident, ${files.toFixed(0).padStart(4)} open files`;
}

/** Claws disconnect and reconnect before their leases expire, repeatedly. */
async function churn(world: World, random: Random, over: AbortSignal): Promise<void> {
  await repeat(CHURN_MS, over, async () => {
    const claw = random.pick(world.claws);
    await claw.kill();
    await sleep(100);
    claw.start();
  });
}

/** Watches of the whole fleet, from a snapshot, for a while. */
async function watches(port: number, over: AbortSignal): Promise<void> {
  using clients = createServiceClients({ address: `127.0.0.1:${port}` });
  await repeat(WATCH_MS, over, async () => {
    const signal = within(4 * WATCH_MS, over);
    for await (const _ of watchThrough(clients, { signal })) {
      // Other tests check the events.
    }
  });
}

/** Calls of services, repeatedly. */
async function calls(port: number, over: AbortSignal): Promise<void> {
  using clients = createServiceClients({ address: `127.0.0.1:${port}` });
  await repeat(CALL_MS, over, async () => {
    await clients.agents.getFleet({}, { signal: over });
    await clients.agents.listAgents({ pageSize: 100 }, { signal: over });
  });
}

/**
 * Aborts after a time, or with another signal. It has its own timer, because a signal that only `AbortSignal.any`
 * references may be garbage-collected.
 */
function within(ms: number, other: AbortSignal): AbortSignal {
  const controller = new AbortController();
  const end = (): void => {
    clearTimeout(timer);
    other.removeEventListener("abort", end);
    controller.abort();
  };
  const timer = setTimeout(end, ms);
  other.addEventListener("abort", end);
  if (other.aborted) end();
  return controller.signal;
}

/** Repeats an action until the signal. Counts temporary rejections, which a busy machine may cause. */
async function repeat(everyMs: number, over: AbortSignal, act: () => Promise<void>): Promise<void> {
  while (!over.aborted) {
    try {
      await act();
    } catch (error) {
      if (over.aborted) return;
      if (callErrorOf(error).permanent) throw error;
      refused += 1;
    }
    await sleep(everyMs, undefined, { signal: over }).catch(() => undefined);
  }
}
