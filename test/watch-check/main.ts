/**
 * The long form: `npm run test:watch -- [seeds, such as 1-20 or 7] [seconds of disturbance] [restores]`. With restores an older
 * state of the database is brought back so many times in each run.
 */
import { run } from "./run.ts";

const [range = "1-20", seconds = "20", restores = "0"] = process.argv.slice(2);
const [first = 1, last = first] = range.split("-").map(Number);
const say = (line: string) => process.stdout.write(`${line}\n`);
let failed = 0;
for (let seed = first; seed <= last; seed += 1) {
  const { problems } = await run({
    seed,
    replicas: 3,
    watchers: 50,
    writers: 12,
    disturbedMs: Number(seconds) * 1_000,
    killReplicas: true,
    restartPostgres: true,
    restores: Number(restores),
    say,
  });
  for (const problem of problems.slice(0, 10)) say(`  ${problem}`);
  if (problems.length > 0) failed += 1;
}
say(failed === 0 ? `no promise was broken in ${last - first + 1} runs` : `${failed} runs FAILED`);
process.exitCode = failed === 0 ? 0 : 1;
