// A fleet that beats for a long time on one replica while claws come and go and others ask: does anything grow? See --help.
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { createServiceClients } from "harborforge-agents-client";
import { callErrorOf, watchThrough } from "harborforge-agents-client/internal";
import { Random } from "../test/chaos/random.ts";
import { World } from "../test/chaos/world.ts";

const HELP = `npm run soak -- [options]
  --minutes N      how long (default 20)
  --agents N       multiplexed over the claws' streams (default 20000)
  --claws N        (default 40)
  --interval MS    the heartbeat interval (default 5000)
  --reports N      reports a second over all agents (default 50)
  --every S        seconds between two samples (default 10)
  --growth SHARE   how much more memory the last sixth may hold than the second (default 0.15)
Exit codes: 0 memory and open files stayed flat and nobody was lost, 1 they did not.`;

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

/** Open files may differ by so many: connections of pools come and go. */
const FILES_SLACK = 20;
/** A claw ends and comes back so often, a watch and a call each much more. */
const CHURN_MS = 5_000;
const WATCH_MS = 2_000;
const CALL_MS = 200;
const TICK_MS = 50;

/** Calls and watches that were told to come back later. */
let refused = 0;

/** After a signal what was started is ended in order; that is not waited for longer than this. */
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

/** The first sixth warms up: it is shown, and not compared. */
function judge(samples: readonly Sample[], accidents: readonly string[]): number {
  const sixth = Math.max(1, Math.floor(samples.length / 6));
  const part = (index: number) => average(samples.slice(index * sixth, (index + 1) * sixth));
  const [first, second, middle, last] = [part(0), part(1), part(3), average(samples.slice(-sixth))];
  console.log(`first   ${words(first)}\nsecond  ${words(second)}\nmiddle  ${words(middle)}\nlast    ${words(last)}`);
  if (refused > 0) console.log(`${refused} calls and watches were told to come back later`);
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

/** Claws break off and come back before their leases end, over and over. */
async function churn(world: World, random: Random, over: AbortSignal): Promise<void> {
  await repeat(CHURN_MS, over, async () => {
    const claw = random.pick(world.claws);
    await claw.kill();
    await sleep(100);
    claw.start();
  });
}

/** Watches that begin with the whole fleet, follow it for a while and leave. */
async function watches(port: number, over: AbortSignal): Promise<void> {
  using clients = createServiceClients({ address: `127.0.0.1:${port}` });
  await repeat(WATCH_MS, over, async () => {
    const signal = within(4 * WATCH_MS, over);
    for await (const _ of watchThrough(clients, { signal })) {
      // What it tells is others' to check.
    }
  });
}

/** What services ask, over and over. */
async function calls(port: number, over: AbortSignal): Promise<void> {
  using clients = createServiceClients({ address: `127.0.0.1:${port}` });
  await repeat(CALL_MS, over, async () => {
    await clients.agents.getFleet({}, { signal: over });
    await clients.agents.listAgents({ pageSize: 100 }, { signal: over });
  });
}

/** Aborts after a time, or with another. By a timer of its own: one that only `AbortSignal.any` knows may be collected. */
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

/** Does it again and again until the signal. What a busy machine makes the service refuse for a while is counted. */
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
