import { cpuMs } from "../harness/cpu.ts";
import { figure, ratio } from "../harness/figures.ts";
import { start, untilSaid, Worker } from "../harness/processes.ts";
import { type BenchRun, informs, loadShare, type Measure, type Scenario } from "../harness/scenario.ts";
import { seedAgents } from "../harness/stage.ts";
import type { HeartbeatFigures, HeartbeatJob } from "../load/heartbeats.ts";
import { alternate, type Round, type Subject } from "./alternate.ts";
import { openEtcd, openFastApi } from "./heartbeat-peers.ts";

const CONNECTIONS = 20;
const STREAMS = 1_000;
/**
 * With it, 1 000 streams send 10 000 messages in a second, which one core can handle beside PostgreSQL; so can all
 * peers except one.
 */
const EVERY_MS = 100;
const MANY = 100;
const MANY_STREAMS = 100;

const SINGLE = { streams: STREAMS, agentsPerStream: 1, everyMs: EVERY_MS, prefix: "single-" };

export const heartbeats: Scenario = {
  name: "heartbeats",
  title: "Cost of a heartbeat",
  async run(stage, bench) {
    const url = await stage.database("bench_heartbeats");
    await seedAgents(stage, url, { prefix: "single-", count: STREAMS });
    await seedAgents(stage, url, { prefix: "many-", count: MANY_STREAMS * MANY });
    await seedAgents(stage, url, { prefix: "fast-", count: STREAMS });
    await stage.checkpoint();
    await using undo = new AsyncDisposableStack();
    const replica = undo.use(await stage.replica(url));
    const load = undo.use(new Worker("load/heartbeats.ts", "load"));
    const subject = async (name: string, job: Omit<HeartbeatJob, "connections">, pid: number, storage?: "storage") => {
      await load.do("open", { name, fleet: { ...job, connections: CONNECTIONS } satisfies HeartbeatJob });
      const cpu = async () => ({
        server: await cpuMs([pid]),
        storage: storage === undefined ? 0 : await stage.cpuMs(),
      });
      return {
        name,
        cpu,
        begin: async () => void (await load.do("work", { name })),
        count: async (ms: number) => await load.do<HeartbeatFigures>("count", { name, ms }),
        end: async () => void (await load.do("rest", { name })),
      } satisfies Subject;
    };
    const echo = undo.use(start(process.execPath, ["bench/peers/grpc-js-echo.ts"], { side: "service" }));
    const [, echoAddress = ""] = await untilSaid(echo, /serving (\S+)/);
    const service = { target: "service", address: replica.grpc } as const;
    const many = { ...service, streams: MANY_STREAMS, agentsPerStream: MANY, everyMs: 1_000, prefix: "many-" };
    const subjects: Subject[] = [
      await subject("echo", { ...SINGLE, target: "echo", address: echoAddress }, echo.pid),
      await subject("service", { ...SINGLE, ...service }, replica.pid, "storage"),
      await subject("many", many, replica.pid, "storage"),
    ];
    if (bench.peers) {
      const connect = undo.use(start(process.execPath, ["bench/peers/connect-node-echo.ts"], { side: "service" }));
      const [, address = ""] = await untilSaid(connect, /serving (\S+)/);
      subjects.push(await subject("connect", { ...SINGLE, target: "service", address }, connect.pid));
      const etcd = await openEtcd(bench, STREAMS);
      if (etcd !== undefined) {
        undo.use(etcd);
        subjects.push(await subject("etcd", { ...SINGLE, target: "etcd", address: etcd.address }, etcd.pid));
      }
      const fastApi = await openFastApi(stage, bench, "single-", STREAMS);
      if (fastApi !== undefined) {
        undo.use(fastApi);
        const fast = { ...SINGLE, ...service, prefix: "fast-", everyMs: 0 };
        subjects.push(await subject("fast", fast, replica.pid, "storage"), fastApi.subject);
      }
    }
    const rounds = await alternate(subjects, bench);
    return [...ownMeasures(rounds, bench), ...(bench.peers ? peerMeasures(rounds) : [])];
  },
};

type Rounds = ReadonlyMap<string, readonly Round[]>;

function ownMeasures(rounds: Rounds, bench: BenchRun): Measure[] {
  const each = (name: string, value: (round: Round) => number) => (rounds.get(name) ?? []).map(value);
  const server = (name: string) => each(name, ({ serverUs }) => serverUs);
  const shares = Object.fromEntries([...rounds].map(([name, all]) => [name, all.map(({ loadShare }) => loadShare)]));
  return [
    informs("echo: CPU a message", "µs", server("echo")),
    informs("service: CPU a heartbeat, one agent a message", "µs", server("service")),
    { name: "service ÷ echo", unit: "×", figure: ratio(server("service"), server("echo")), must: 2, aim: 1.5 },
    informs("service + PostgreSQL: CPU a heartbeat", "µs", each("service", wholeUs)),
    {
      name: "service: CPU a beat, 100 agents a message",
      unit: "µs",
      figure: figure(server("many").map((us) => us / MANY)),
      must: 8,
      aim: 4,
    },
    informs(
      "service + PostgreSQL: CPU a beat, 100 agents a message",
      "µs",
      each("many", (round) => wholeUs(round) / MANY),
    ),
    informs(
      "acknowledged within, p50",
      "ms",
      each("service", ({ p50Ms }) => p50Ms),
    ),
    informs(
      "acknowledged within, p99",
      "ms",
      each("service", ({ p99Ms }) => p99Ms),
    ),
    informs(
      "echo answered within, p99",
      "ms",
      each("echo", ({ p99Ms }) => p99Ms),
    ),
    informs(
      "answers a message",
      "",
      each("service", ({ answers }) => answers),
    ),
    informs(
      "bytes from a client, one agent a message",
      "B",
      each("service", ({ sentBytes }) => sentBytes),
    ),
    informs(
      "bytes to a client, one agent a message",
      "B",
      each("service", ({ receivedBytes }) => receivedBytes),
    ),
    informs(
      "bytes from a client a beat, 100 agents a message",
      "B",
      each("many", ({ sentBytes }) => sentBytes / MANY),
    ),
    informs(
      "bytes to a client a beat, 100 agents a message",
      "B",
      each("many", ({ receivedBytes }) => receivedBytes / MANY),
    ),
    loadShare(bench, shares),
  ];
}

function peerMeasures(rounds: Rounds): Measure[] {
  const whole = (name: string) => (rounds.get(name) ?? []).map(wholeUs);
  const perSecond = (name: string) => (rounds.get(name) ?? []).map(({ perSecond }) => perSecond);
  const measures = [informs("connect-node echo: CPU a message", "µs", whole("connect"))];
  if (rounds.has("etcd")) {
    const against = ratio(whole("service"), whole("etcd"));
    measures.push(informs("etcd keep-alive: CPU a message", "µs", whole("etcd")), {
      name: "service + PostgreSQL ÷ etcd",
      unit: "×",
      figure: against,
      must: 0.8,
      aim: 0.5,
    });
  }
  if (rounds.has("fastapi")) {
    const against = ratio(perSecond("fast"), perSecond("fastapi"));
    const server = (rounds.get("fastapi") ?? []).map(({ serverUs }) => serverUs);
    measures.push(
      informs("FastAPI + SQLAlchemy: CPU a heartbeat", "µs", server),
      informs("FastAPI + SQLAlchemy + PostgreSQL: CPU a heartbeat", "µs", whole("fastapi")),
      informs("FastAPI + SQLAlchemy: heartbeats a second", "/s", perSecond("fastapi")),
      informs("service: heartbeats a second, as fast as it goes", "/s", perSecond("fast")),
      { name: "service ÷ FastAPI, heartbeats a second", unit: "×", figure: against, must: 50, aim: 100, more: true },
    );
  }
  return measures;
}

function wholeUs({ serverUs, storageUs }: Round): number {
  return serverUs + storageUs;
}
