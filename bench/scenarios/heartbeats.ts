import { setTimeout as sleep } from "node:timers/promises";
import { cpuMs } from "../harness/cpu.ts";
import { figure, ratio } from "../harness/figures.ts";
import { start, untilSaid, Worker } from "../harness/processes.ts";
import type { Asked, Measure, Scenario } from "../harness/scenario.ts";
import { type Stage, seedAgents } from "../harness/stage.ts";
import type { HeartbeatFigures, HeartbeatJob, Target } from "../load/heartbeats.ts";
import { openEtcd, openFastApi } from "./heartbeat-peers.ts";

/** Before it counts. */
const RUN_IN_MS = 500;
const CONNECTIONS = 20;
const STREAMS = 1_000;
/** With it 1 000 streams send 10 000 messages a second: what one core bears beside PostgreSQL, and every peer but one. */
const EVERY_MS = 100;
const MANY = 100;

/** Something that answers heartbeats, and what it costs. */
export interface Subject {
  readonly name: string;
  readonly load: Pick<HeartbeatJob, "address" | "target" | "streams" | "agentsPerStream" | "everyMs">;
  /** Processor time used so far, in milliseconds: of the server, and of what it stores in. */
  readonly cpu: () => Promise<{ server: number; storage: number }>;
}

export interface Round {
  readonly perSecond: number;
  /** Microseconds of processor time a message. */
  readonly serverUs: number;
  readonly storageUs: number;
  readonly p99Ms: number;
  /** Of the core that the load generator has. */
  readonly loadShare: number;
}

export const heartbeats: Scenario = {
  name: "heartbeats",
  title: "What each heartbeat costs",
  async run(stage, asked) {
    const url = await stage.database("bench_heartbeats");
    await seedAgents(stage, url, { prefix: "single-", count: STREAMS });
    await seedAgents(stage, url, { prefix: "many-", count: STREAMS * MANY });
    await using undo = new AsyncDisposableStack();
    const replica = undo.use(await stage.replica(url));
    const echo = undo.use(start(process.execPath, ["bench/peers/grpc-js-echo.ts"], { side: "service" }));
    const [, echoAddress = ""] = await untilSaid(echo, /serving (\S+)/);

    const service = {
      cpu: async () => ({ server: await cpuMs([replica.pid]), storage: await stage.cpuMs() }),
    };
    const single = { streams: STREAMS, agentsPerStream: 1, everyMs: EVERY_MS };
    const multi = { streams: 100, agentsPerStream: MANY, everyMs: 1_000 };
    const subjects: Subject[] = [
      { name: "echo", load: { ...single, target: "echo", address: echoAddress }, cpu: alone(echo.pid) },
      { name: "service", load: { ...single, target: "service", address: replica.grpc }, ...service },
      { name: "many a message", load: { ...multi, target: "service", address: replica.grpc }, ...service },
    ];
    const measures: Measure[] = [];
    const rounds = await alternate(subjects, asked);
    const of = (name: string) => rounds.get(name) ?? [];
    const server = (name: string) => of(name).map(({ serverUs }) => serverUs);
    const whole = (name: string) => of(name).map(({ serverUs, storageUs }) => serverUs + storageUs);
    measures.push(
      informs("echo: CPU a message", "µs", server("echo")),
      informs("service: CPU a heartbeat, one agent a message", "µs", server("service")),
      { name: "service ÷ echo", unit: "×", figure: ratio(server("service"), server("echo")), must: 2, aim: 1.5 },
      informs("service + PostgreSQL: CPU a heartbeat", "µs", whole("service")),
      informs(
        "acknowledged within, p99",
        "ms",
        of("service").map(({ p99Ms }) => p99Ms),
      ),
      {
        name: "service: CPU a beat, 100 agents a message",
        unit: "µs",
        figure: figure(server("many a message").map((us) => us / MANY)),
        must: 8,
        aim: 4,
      },
      informs(
        "the load generator's share of its core",
        "",
        of("service").map(({ loadShare }) => loadShare),
      ),
    );
    if (asked.peers) measures.push(...(await besidePeers(stage, asked, subjects, undo)));
    return measures;
  },
};

async function besidePeers(
  stage: Stage,
  asked: Asked,
  own: readonly Subject[],
  undo: AsyncDisposableStack,
): Promise<Measure[]> {
  const measures: Measure[] = [];
  const service = own.filter(({ name }) => name === "service");
  const connect = undo.use(start(process.execPath, ["bench/peers/connect-node-echo.ts"], { side: "service" }));
  const [, address = ""] = await untilSaid(connect, /serving (\S+)/);
  const single = { streams: STREAMS, agentsPerStream: 1, everyMs: EVERY_MS };
  const others: Subject[] = [
    { name: "connect", load: { ...single, target: "service", address }, cpu: alone(connect.pid) },
  ];
  const etcd = await openEtcd(asked, STREAMS);
  if (etcd !== undefined) {
    undo.use(etcd);
    others.push({ name: "etcd", load: { ...single, target: "etcd", address: etcd.address }, cpu: alone(etcd.pid) });
  }
  const rounds = await alternate([...service, ...others], asked);
  const whole = (name: string) => (rounds.get(name) ?? []).map(({ serverUs, storageUs }) => serverUs + storageUs);
  measures.push(informs("connect-node echo: CPU a message", "µs", whole("connect")));
  if (etcd !== undefined) {
    measures.push(informs("etcd keep-alive: CPU a message", "µs", whole("etcd")), {
      name: "service + PostgreSQL ÷ etcd",
      unit: "×",
      figure: ratio(whole("service"), whole("etcd")),
      must: 0.8,
      aim: 0.5,
    });
  }
  const fastApi = await openFastApi(stage, asked);
  if (fastApi !== undefined) {
    undo.use(fastApi);
    const full = service.map((subject) => ({ ...subject, load: { ...subject.load, streams: STREAMS, everyMs: 0 } }));
    const most = (await alternate(full, asked)).get("service") ?? [];
    const posts = await fastApi.rounds();
    measures.push(
      informs(
        "FastAPI + SQLAlchemy: heartbeats a second",
        "/s",
        posts.map(({ perSecond }) => perSecond),
      ),
      informs(
        "FastAPI + SQLAlchemy: CPU a heartbeat",
        "µs",
        posts.map(({ serverUs }) => serverUs),
      ),
      informs(
        "service: heartbeats a second, as fast as it goes",
        "/s",
        most.map(({ perSecond }) => perSecond),
      ),
      {
        name: "service ÷ FastAPI + SQLAlchemy, heartbeats a second",
        unit: "×",
        figure: ratio(
          most.map(({ perSecond }) => perSecond),
          posts.map(({ perSecond }) => perSecond),
        ),
        must: 50,
        aim: 100,
        more: true,
      },
    );
  }
  return measures;
}

/** Round by round each subject once, so that what disturbs the machine disturbs all. */
export async function alternate(subjects: readonly Subject[], asked: Asked): Promise<Map<string, Round[]>> {
  await using load = new Worker("load/heartbeats.ts", "load");
  const rounds = new Map<string, Round[]>();
  for (const { name, load: fleet } of subjects) {
    const prefix = fleet.agentsPerStream > 1 ? "many-" : "single-";
    await load.do("open", { name, fleet: { ...fleet, connections: CONNECTIONS, prefix } satisfies HeartbeatJob });
    rounds.set(name, []);
  }
  for (let round = 0; round < asked.rounds; round += 1) {
    for (const subject of subjects) {
      const { name, cpu } = subject;
      await load.do("work", { name });
      await sleep(RUN_IN_MS);
      const before = await cpu();
      const figures = await load.do<HeartbeatFigures>("count", { name, ms: asked.roundMs });
      const after = await cpu();
      await load.do("rest", { name });
      const { messages, ms, loadCpuMs, p99Ms } = figures;
      rounds.get(name)?.push({
        perSecond: (messages / ms) * 1_000,
        serverUs: ((after.server - before.server) * 1_000) / messages,
        storageUs: ((after.storage - before.storage) * 1_000) / messages,
        p99Ms,
        loadShare: loadCpuMs / ms,
      });
    }
  }
  return rounds;
}

function alone(pid: number): Subject["cpu"] {
  return async () => ({ server: await cpuMs([pid]), storage: 0 });
}

export function informs(name: string, unit: string, values: readonly number[]): Measure {
  return { name, unit, figure: figure(values) };
}

export type { Target };
