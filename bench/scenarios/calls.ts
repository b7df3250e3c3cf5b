import { cpuMs } from "../harness/cpu.ts";
import { ratio } from "../harness/figures.ts";
import { start, untilSaid, Worker } from "../harness/processes.ts";
import type { Scenario } from "../harness/scenario.ts";
import { seedAgents } from "../harness/stage.ts";
import type { CallFigures } from "../load/calls.ts";
import { informs } from "./heartbeats.ts";

const UNDERWAY = 64;
const AGENTS = 1_000;

export const calls: Scenario = {
  name: "calls",
  title: "What a call costs",
  async run(stage, asked) {
    const url = await stage.database("bench_calls");
    await seedAgents(stage, url, { prefix: "single-", count: AGENTS });
    await using undo = new AsyncDisposableStack();
    const replica = undo.use(await stage.replica(url));
    const echo = undo.use(start(process.execPath, ["bench/peers/grpc-js-echo.ts"], { side: "service" }));
    const [, echoAddress = ""] = await untilSaid(echo, /serving (\S+)/);
    const load = undo.use(new Worker("load/calls.ts", "load"));
    const subjects = [
      {
        pid: echo.pid,
        job: { address: echoAddress, path: "/bench.Echo/Unary" },
        us: [] as number[],
        perSecond: [] as number[],
      },
      {
        pid: replica.pid,
        job: { address: replica.grpc, path: "/harborforge.agents.v1.AgentService/GetAgent" },
        us: [] as number[],
        perSecond: [] as number[],
      },
    ] as const;
    for (let round = 0; round < asked.rounds + 1; round += 1) {
      for (const { pid, job, us, perSecond } of subjects) {
        const before = await cpuMs([pid]);
        const details = { ...job, prefix: "single-", agents: AGENTS, underway: UNDERWAY, ms: asked.roundMs };
        const { calls: count, ms } = await load.do<CallFigures>("count", details);
        // The first round warms up.
        if (round === 0) continue;
        us.push((((await cpuMs([pid])) - before) * 1_000) / count);
        perSecond.push((count / ms) * 1_000);
      }
    }
    const [floor, service] = subjects;
    return [
      informs("echo: CPU a call", "µs", floor.us),
      informs("GetAgent: CPU a call", "µs", service.us),
      informs("GetAgent: calls a second", "/s", service.perSecond),
      { name: "GetAgent ÷ echo", unit: "×", figure: ratio(service.us, floor.us), must: 4, aim: 2.5 },
    ];
  },
};
