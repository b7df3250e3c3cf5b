// Measures the service, and beside it a lower bound and peers. See --help.
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { chartsOf } from "./charts/all.ts";
import { cpuMs, family, machineBusyMs } from "./harness/cpu.ts";
import { redrawDocs, updateDocs } from "./harness/docs.ts";
import { describeMachine, measuredCommit } from "./harness/machine.ts";
import { OptionError, type Options, readOptions } from "./harness/options.ts";
import { peerVersions } from "./harness/peer-versions.ts";
import { CORES, endAll } from "./harness/processes.ts";
import { headOf, type Report, type ScenarioReport, sectionOf } from "./harness/report.ts";
import { removeFolder } from "./harness/run-folder.ts";
import type { Scenario } from "./harness/scenario.ts";
import { Stage } from "./harness/stage.ts";
import { SCENARIOS } from "./scenarios/all.ts";

const names = (which: (scenario: Scenario) => boolean) =>
  SCENARIOS.filter(which)
    .map(({ name }) => name)
    .join(", ");

const HELP = `npm run bench -- [options]
  --only NAME      one scenario; repeat for more:
                   ${names(({ full, named }) => full !== true && named !== true)};
                   with --scale full also ${names(({ full }) => full === true)};
                   only by name: ${names(({ named }) => named === true)}
  --without NAME   omit this scenario; repeat for more
  --peers          also measure etcd, connect-node and FastAPI, if they are installed
  --scale full     also the large fleets, which take many minutes, and all rounds of long scenarios
  --rounds N       rounds of each measure (default 5); the median is shown
  --seconds N      seconds of each round (default 1)
  --out FOLDER     the folder for results.json and the charts (default bench/out)
  --docs           also update docs/performance.json, its charts and docs/performance.md,
                   replacing older results of the same scenarios
  --redraw         do not measure, only redraw the charts and tables of docs/performance.md
Exit codes: 0 measured, 1 a scenario failed, 2 the command line is invalid, 130 stopped.`;

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    // A second signal stops at once.
    if (stop.signal.aborted) process.exit(130);
    stop.abort(new Error("stopped"));
  });
}

try {
  const options = readOptions(
    process.argv.slice(2),
    SCENARIOS.map(({ name }) => name),
  );
  if (options === "help") console.log(HELP);
  else if (options.redraw) await redrawDocs();
  else process.exitCode = await measure(options);
} catch (error) {
  if (!(error instanceof OptionError)) throw error;
  console.error(`${error.message} See npm run bench -- --help.`);
  process.exitCode = 2;
}

async function measure(options: Options): Promise<number> {
  const wanted = ({ name, full, named }: Scenario) =>
    options.only.length > 0 ? options.only.includes(name) : named !== true && (full !== true || options.full);
  const chosen = SCENARIOS.filter((scenario) => wanted(scenario) && !options.without.includes(scenario.name));
  const begin = performance.now();
  const machine = await describeMachine();
  const commit = measuredCommit();
  if (CORES === undefined) console.error("nothing is pinned: there are no two cores, or no taskset (util-linux)");
  const scenarios: ScenarioReport[] = [];
  let failed = 0;
  try {
    for (const scenario of chosen) {
      console.error(`… ${scenario.title}`);
      try {
        const report = await run(scenario, options, commit);
        scenarios.push(report);
        console.log(`\n${sectionOf(report, "##")}\n`);
      } catch (error) {
        if (stop.signal.aborted) return 130;
        failed += 1;
        console.error(`${scenario.name} failed:`, error);
      }
    }
  } finally {
    await endAll();
    await removeFolder();
  }
  const report: Report = { machine, scenarios };
  const seconds = Math.round((performance.now() - begin) / 1_000);
  console.log(`${headOf(machine)}\nThat took ${Math.floor(seconds / 60)} min ${seconds % 60} s.`);
  await mkdir(options.out, { recursive: true });
  await writeFile(join(options.out, "results.json"), `${JSON.stringify(report, null, 2)}\n`);
  for (const { file, svg } of chartsOf(report)) await writeFile(join(options.out, file), svg);
  if (options.docs) await updateDocs(report);
  return failed === 0 ? 0 : 1;
}

/** Each scenario has a PostgreSQL of its own, so that WAL and dead rows of one do not slow down another. */
async function run({ name, title, run }: Scenario, options: Options, commit: string): Promise<ScenarioReport> {
  const notes: string[] = [];
  const begin = performance.now();
  const at = new Date().toISOString();
  await using stage = await Stage.open(stop.signal);
  const stopped = Promise.withResolvers<never>();
  const onStop = () => stopped.reject(stop.signal.reason);
  stop.signal.addEventListener("abort", onStop);
  if (stop.signal.aborted) onStop();
  const before = await usage();
  try {
    const { rounds, roundMs, peers, full } = options;
    const log = (line: string) => console.error(line);
    const note = (line: string) => {
      notes.push(line);
      console.error(`  ${line}`);
    };
    const bench = { rounds, roundMs, peers, full, log, note };
    // A stopped scenario fails as soon as its processes end. This failure is not reported.
    const measures = await Promise.race([run(stage, bench), stopped.promise]);
    const after = await usage();
    const others = after.busy - before.busy - (after.own - before.own);
    const elsewhere = Math.max(0, others / ((after.at - before.at) * after.cores));
    return {
      name,
      title,
      at,
      seconds: Math.round((performance.now() - begin) / 1_000),
      settings: {
        ...{ rounds, roundMs, peers, full },
        commit,
        postgresql: stage.postgresVersion,
        versions: peerVersions(peers && name === "heartbeats"),
      },
      ...(Number.isFinite(elsewhere) ? { elsewhere } : {}),
      notes,
      measures,
    };
  } finally {
    stop.signal.removeEventListener("abort", onStop);
    if (stop.signal.aborted) await endAll();
  }
}

/** Milliseconds: of all processors, and of the bench with all that it started. */
async function usage() {
  const machine = await machineBusyMs();
  const own = await cpuMs(await family(process.pid));
  return { busy: machine?.busyMs ?? Number.NaN, cores: machine?.cores ?? 1, own, at: performance.now() };
}
