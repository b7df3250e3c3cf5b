import { cpuMs } from "../harness/cpu.ts";
import { ratio } from "../harness/figures.ts";
import { start, untilSaid, Worker } from "../harness/processes.ts";
import { informs, loadShare, type Scenario } from "../harness/scenario.ts";
import { seedAgents } from "../harness/stage.ts";
import type { CallFigures } from "../load/calls.ts";

const UNDERWAY = 64;
const AGENTS = 1_000;
/** The warm-up: tens of thousands of calls, so that V8 has optimised the code. */
const WARM_UP_MS = 3_000;

interface Round extends CallFigures {
  readonly serverUs: number;
  readonly storageUs: number;
}

export const calls: Scenario = {
  name: "calls",
  title: "Cost of a call",
  async run(stage, bench) {
    const url = await stage.database("bench_calls");
    await seedAgents(stage, url, { prefix: "single-", count: AGENTS });
    await using undo = new AsyncDisposableStack();
    const replica = undo.use(await stage.replica(url));
    const echo = undo.use(start(process.execPath, ["bench/peers/grpc-js-echo.ts"], { side: "service" }));
    const [, echoAddress = ""] = await untilSaid(echo, /serving (\S+)/);
    const load = undo.use(new Worker("load/calls.ts", "load"));
    const subjects = {
      echo: { pid: echo.pid, job: { address: echoAddress, path: "/bench.Echo/Unary" } },
      service: {
        pid: replica.pid,
        job: { address: replica.grpc, path: "/harborforge.agents.v1.AgentService/GetAgent" },
      },
    };
    const rounds: Record<keyof typeof subjects, Round[]> = { echo: [], service: [] };
    const oneRound = async (name: keyof typeof subjects, ms: number): Promise<Round> => {
      const { pid, job } = subjects[name];
      const before = { server: await cpuMs([pid]), storage: await stage.cpuMs() };
      const details = { ...job, prefix: "single-", agents: AGENTS, underway: UNDERWAY, ms };
      const figures = await load.do<CallFigures>("count", details);
      return {
        ...figures,
        serverUs: (((await cpuMs([pid])) - before.server) * 1_000) / figures.calls,
        storageUs: (((await stage.cpuMs()) - before.storage) * 1_000) / figures.calls,
      };
    };
    const names = ["echo", "service"] as const;
    for (const name of names) await oneRound(name, WARM_UP_MS);
    for (let round = 0; round < bench.rounds; round += 1) {
      const order = round % 2 === 0 ? names : names.toReversed();
      for (const name of order) rounds[name].push(await oneRound(name, bench.roundMs));
    }
    const each = (name: keyof typeof subjects, value: (round: Round) => number) => rounds[name].map(value);
    const server = (name: keyof typeof subjects) => each(name, ({ serverUs }) => serverUs);
    const share = ({ loadCpuMs, ms }: Round) => loadCpuMs / ms;
    return [
      informs("echo: CPU a call", "µs", server("echo")),
      informs("GetAgent: CPU a call", "µs", server("service")),
      { name: "GetAgent ÷ echo", unit: "×", figure: ratio(server("service"), server("echo")), must: 4, aim: 2.5 },
      informs(
        "GetAgent: CPU of PostgreSQL a call",
        "µs",
        each("service", ({ storageUs }) => storageUs),
      ),
      informs(
        "GetAgent: calls a second",
        "/s",
        each("service", ({ calls, ms }) => (calls / ms) * 1_000),
      ),
      informs(
        `GetAgent: answered within, p99, ${UNDERWAY} underway`,
        "ms",
        each("service", ({ p99Ms }) => p99Ms),
      ),
      loadShare(bench, { echo: each("echo", share), GetAgent: each("service", share) }),
    ];
  },
};
