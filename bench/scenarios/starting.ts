import { once } from "node:events";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { family } from "../harness/cpu.ts";
import { figure } from "../harness/figures.ts";
import { type Started, start, untilSaid } from "../harness/processes.ts";
import { temporaryFolder } from "../harness/run-folder.ts";
import { fewRounds, type Scenario } from "../harness/scenario.ts";

const STOP_MS = 60_000;

export const starting: Scenario = {
  name: "starting",
  title: "Time from `npm start` to serving",
  async run(_stage, bench) {
    const first: number[] = [];
    const again: number[] = [];
    for (let round = 0; round < fewRounds(bench); round += 1) {
      const folder = await temporaryFolder("start");
      try {
        first.push(await timed(folder));
        again.push(await timed(folder));
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    }
    return [
      { name: "the data folder is there", unit: "s", figure: figure(again), must: 3, aim: 2 },
      { name: "on a new data folder", unit: "s", figure: figure(first), must: 6, aim: 4 },
    ];
  },
};

async function timed(folder: string): Promise<number> {
  const begin = performance.now();
  await using program = start("npm", ["start", "--silent"], {
    side: "anywhere",
    env: {
      HARBORFORGE_DATA_DIR: join(folder, "data"),
      HARBORFORGE_GRPC_ADDRESS: "127.0.0.1:0",
      HARBORFORGE_HTTP_ADDRESS: "127.0.0.1:0",
    },
  });
  await untilSaid(program, /^HTTP /m);
  const seconds = (performance.now() - begin) / 1_000;
  await stop(program);
  return seconds;
}

/**
 * Stop the service itself: a signal to npm would leave the service running, and its processor time would be attributed
 * to others.
 */
async function stop(program: Started): Promise<void> {
  const closed = once(program.child, "close", { signal: AbortSignal.timeout(STOP_MS) });
  const services: number[] = [];
  for (const pid of await family(program.pid)) {
    const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (command.includes("bin/harborforge-agents")) services.push(pid);
  }
  const service = services.at(-1);
  if (service === undefined) throw new Error("npm start runs no service");
  process.kill(service, "SIGTERM");
  await closed;
}
