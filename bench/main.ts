// Measures the service beside its floor and its peers. See --help.
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
                   by name alone ${names(({ named }) => named === true)}
  --without NAME   all that would be run but this one; repeat for more
  --peers          beside etcd, connect-node and FastAPI, where they are installed
  --scale full     the large fleets as well, which take many minutes, and all rounds of what takes long
  --rounds N       of each measure (default 5); the median is shown
  --seconds N      how long a round counts (default 1)
  --out FOLDER     where results.json and the charts go (default bench/out)
  --docs           put the results into docs/performance.json, its charts and docs/performance.md as well,
                   in place of older ones of the same scenarios
  --redraw         measure nothing: make the charts and tables of docs/performance.md anew
Exit codes: 0 measured, whatever the figures; 1 something failed; 2 the command line is wrong; 130 stopped.`;

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    // Again: whoever asks does not want to wait.
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

/** Each on a PostgreSQL of its own: what one leaves behind (WAL, dead rows) slows no other down. */
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
    const tell = (line: string) => console.error(line);
    const note = (line: string) => {
      notes.push(line);
      console.error(`  ${line}`);
    };
    const asked = { rounds, roundMs, peers, full, tell, note };
    // One that is stopped fails of itself as soon as what it started is ended; nobody waits for that.
    const measures = await Promise.race([run(stage, asked), stopped.promise]);
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
