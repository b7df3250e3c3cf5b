// Runs the chaos suite: real processes, faults from a seed, and an observer that checks the invariants. See --help.
import { parseArgs } from "node:util";
import { FAULTS } from "../test/chaos/faults.ts";
import { report } from "../test/chaos/report.ts";
import { type ChaosResult, runChaos } from "../test/chaos/run-chaos.ts";

const HELP = `npm run test:chaos -- [options]
  --seed N          the first seed (default: the time); determines the faults
  --seeds N         how many seeds, one after the other (default 1)
  --seconds N       how long each run injects faults (default 60)
  --agents N        (default 2000)   --claws N  (default 20)
  --interval MS     the heartbeat interval; a lease is three (default 1000)
  --faults a,b      only these (default all): ${Object.keys(FAULTS).join(", ")}
  --at-once N       faults at the same time, at most (default 2)
  --slack MS        allowed delay of an expiry after its lease (default 1500)
  --reports N       reports a second over all agents (default 100)
  --show N          violations to show for each invariant (default 5)
  --mixed           restart replicas with alternating releases: this checkout, and one that follows it
  --keep FOLDER     keep the logs of the replicas there
Exit codes: 0 all invariants held in each run, 1 a violation, 2 a run failed to start.`;

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    seeds: { type: "string", default: "1" },
    seconds: { type: "string", default: "60" },
    agents: { type: "string", default: "2000" },
    claws: { type: "string", default: "20" },
    interval: { type: "string", default: "1000" },
    faults: { type: "string", default: Object.keys(FAULTS).join(",") },
    "at-once": { type: "string", default: "2" },
    slack: { type: "string", default: "1500" },
    reports: { type: "string", default: "100" },
    show: { type: "string", default: "5" },
    mixed: { type: "boolean", default: false },
    keep: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

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
  const first = values.seed === undefined ? Date.now() % 1_000_000_007 : Number(values.seed);
  let passed = 0;
  let failed = 0;
  for (let seed = first; seed < first + Number(values.seeds) && !stop.signal.aborted; seed += 1) {
    console.log(`seed ${seed}`);
    try {
      const result = await run(seed);
      for (const line of report(result, Number(values.show))) console.log(`  ${line}`);
      if (result.violations.length === 0) passed += 1;
      else failed += 1;
    } catch (error) {
      console.error(`seed ${seed}: ${error instanceof Error ? error.stack : String(error)}`);
      return 2;
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

function run(seed: number): Promise<ChaosResult> {
  return runChaos({
    seed,
    forMs: Number(values.seconds) * 1_000,
    agents: Number(values.agents),
    claws: Number(values.claws),
    intervalMs: Number(values.interval),
    faults: values.faults.split(","),
    atOnce: Number(values["at-once"]),
    slackMs: Number(values.slack),
    reportsPerSecond: Number(values.reports),
    mixed: values.mixed,
    ...(values.keep === undefined ? {} : { keepLogsIn: values.keep }),
    onLine: (line) => console.log(`  ${line}`),
    signal: stop.signal,
  });
}
