// Measures the service beside its floor and its peers. See --help.
import { mkdir, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { chartOf } from "./harness/chart.ts";
import { describeMachine } from "./harness/machine.ts";
import { headOf, type Report, type ScenarioReport, tableOf } from "./harness/report.ts";
import type { Asked } from "./harness/scenario.ts";
import { Stage } from "./harness/stage.ts";
import { SCENARIOS } from "./scenarios/all.ts";

const HELP = `npm run bench -- [options]
  --only NAME      one scenario (repeat for more): ${SCENARIOS.map(({ name }) => name).join(", ")}
  --peers          beside etcd, connect-node and FastAPI, where they are installed
  --scale full     the large fleets as well, which take many minutes
  --rounds N       of each measure (default 5); the median is shown
  --seconds N      how long a round counts (default 3)
  --out FOLDER     where results.json and the charts go (default bench/out)
Exit codes: 0 measured, whatever the figures; 1 something failed.`;

const { values } = parseArgs({
  options: {
    only: { type: "string", multiple: true, default: [] },
    peers: { type: "boolean", default: false },
    scale: { type: "string", default: "small" },
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "3" },
    out: { type: "string", default: "bench/out" },
    help: { type: "boolean", default: false },
  },
});

if (values.help) console.log(HELP);
else process.exitCode = await main();

async function main(): Promise<number> {
  const asked: Asked = {
    rounds: Number(values.rounds),
    roundMs: Number(values.seconds) * 1_000,
    peers: values.peers,
    full: values.scale === "full",
    tell: (line) => console.error(line),
  };
  const chosen = SCENARIOS.filter(({ name, full }) =>
    values.only.length > 0 ? values.only.includes(name) : full !== true || asked.full,
  );
  const scenarios: ScenarioReport[] = [];
  let failed = 0;
  const machine = await describeMachine();
  let postgresql = "";
  for (const { name, title, run } of chosen) {
    console.error(`… ${title}`);
    try {
      // Each on a PostgreSQL of its own: what one leaves behind (WAL, dead rows) slows no other down.
      await using stage = await Stage.open();
      postgresql = stage.postgresVersion;
      const report = { name, title, measures: await run(stage, asked) };
      scenarios.push(report);
      console.log(`\n${tableOf(report)}`);
    } catch (error) {
      failed += 1;
      console.error(error);
    }
  }
  const { rounds, roundMs, peers } = asked;
  const report: Report = { machine, settings: { postgresql, rounds, roundMs, peers }, scenarios };
  console.log(`\n${headOf(report)}`);
  await mkdir(values.out, { recursive: true });
  await writeFile(`${values.out}/results.json`, `${JSON.stringify(report, null, 2)}\n`);
  for (const one of scenarios) await writeFile(`${values.out}/${one.name}.svg`, chartOf(one));
  return failed === 0 ? 0 : 1;
}
