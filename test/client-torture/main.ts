/** The long form: `npm run test:client-faults -- [--minutes 60] [--seed N]`. See --help. */
import { parseArgs } from "node:util";
import { FAULTS, type FaultName } from "./faults.ts";
import { runTorture } from "./run.ts";

const NAMES: readonly string[] = Object.keys(FAULTS);
const HELP = `npm run test:client-faults -- [options]
  --minutes N     how long faults begin (default 60)
  --seed N        the plan of the faults follows from it (default: of the moment)
  --stall SECONDS the longest stall and freeze of a host (default 60)
  --replicas N    (default 3)   --agents N  of each host (default 4)
  --interval MS   the heartbeat interval; a lease is three (default 10000)
  --faults a,b    only these (default all): ${NAMES.join(", ")}
Exit codes: 0 nothing was wrong, 1 something was.`;

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "60" },
    seed: { type: "string" },
    stall: { type: "string", default: "60" },
    replicas: { type: "string", default: "3" },
    agents: { type: "string", default: "4" },
    interval: { type: "string", default: "10000" },
    faults: { type: "string", default: NAMES.join(",") },
    help: { type: "boolean", default: false },
  },
});

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());

if (values.help) say(HELP);
else process.exitCode = await main();

async function main(): Promise<number> {
  const { problems, faults, acknowledged, slowestMs } = await runTorture({
    seed: values.seed === undefined ? Date.now() % 1_000_000_007 : Number(values.seed),
    forMs: Number(values.minutes) * 60_000,
    replicas: Number(values.replicas),
    agentsPerHost: Number(values.agents),
    intervalMs: Number(values.interval),
    everyMs: 3_000,
    longestStallMs: Number(values.stall) * 1_000,
    faults: values.faults.split(",").filter((name): name is FaultName => NAMES.includes(name)),
    recoverWithinMs: 90_000,
    onLine: say,
    signal: stop.signal,
  });
  say(`${faults} faults, ${acknowledged} acknowledged reports, works again within ${Math.round(slowestMs)} ms at most`);
  say(problems.length === 0 ? "PASSED: nothing was wrong" : `FAILED: ${problems.length} problems`);
  return problems.length === 0 ? 0 : 1;
}
