// Beside a large fleet: changes the status of some agents and measures how soon a watcher of the whole fleet gets the
// change. Records which agents go offline and when the watcher learns of it, and lists the whole fleet now and then.
import type http2 from "node:http2";
import { setTimeout as sleep } from "node:timers/promises";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { AgentStatus, TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  AgentService,
  WatchAgentsRequestSchema,
  WatchAgentsResponseSchema,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { doJobs } from "../harness/jobs.ts";
import { Latency, type LatencyFigures } from "./latency.ts";
import { callUnary, connect, framed, openStream, unframer } from "./wire.ts";

const PAUSE_MS = 200;
const ASK_EVERY_MS = 20_000;

/** An agent whose lease expired, and when the watcher got the change, in microseconds since 1970. */
export interface KnownEnd {
  readonly agentId: string;
  readonly knownAt: number;
}

export interface FleetNews {
  /** From the response to the change until the watcher got it; 0 if the watcher was first. */
  readonly news: LatencyFigures;
  /** From the call to its response. */
  readonly answer: LatencyFigures;
  readonly getFleet: LatencyFigures;
  readonly listAgents: LatencyFigures;
  readonly ends: readonly KnownEnd[];
  /** The first failure. */
  readonly failure: string | undefined;
}

const ends: KnownEnd[] = [];
const received = new Map<bigint, number>();
const sessions: http2.ClientHttp2Session[] = [];
let latencies = newLatencies();
let failure: string | undefined;
let stopped = false;
let wake: () => void = () => undefined;

function newLatencies() {
  return { news: new Latency(), answer: new Latency(), getFleet: new Latency(), listAgents: new Latency() };
}

function session(address: string): http2.ClientHttp2Session {
  const opened = connect(`http://${address}`);
  sessions.push(opened);
  return opened;
}

function watch(address: string, afterRevision: bigint): void {
  const stream = openStream(session(address), AgentService.method.watchAgents);
  stream.on("error", (error) => {
    if (!stopped) failure ??= `the watch ended: ${error}`;
  });
  stream.on("trailers", (trailers) => {
    if (!stopped) failure ??= `the watch ended: ${trailers["grpc-status"]} ${trailers["grpc-message"]}`;
  });
  stream.on("close", () => {
    if (!stopped) failure ??= "the watch ended";
  });
  stream.on(
    "data",
    unframer((bytes) => {
      const at = performance.now();
      for (const { transition } of fromBinary(WatchAgentsResponseSchema, bytes).changes) {
        if (transition?.cause === TransitionCause.LEASE_EXPIRED)
          ends.push({ agentId: transition.agentId, knownAt: (performance.timeOrigin + at) * 1_000 });
        else if (transition !== undefined) received.set(transition.revision, at);
      }
      wake();
    }),
  );
  stream.end(framed(toBinary(WatchAgentsRequestSchema, create(WatchAgentsRequestSchema, { afterRevision }))));
}

async function changeStatuses(address: string, agentIds: readonly string[]): Promise<void> {
  const writer = session(address);
  for (let n = 0; !stopped; n += 1) {
    const agentId = agentIds[n % agentIds.length] ?? "";
    const status = Math.floor(n / agentIds.length) % 2 === 0 ? AgentStatus.BUSY : AgentStatus.ON_CALL;
    const begun = performance.now();
    const { agent } = await callUnary(writer, AgentService.method.updateAgentStatus, { agentId, status });
    const answered = performance.now();
    const revision = agent?.revision ?? 0n;
    while (!received.has(revision) && !stopped) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    latencies.answer.record(answered - begun);
    latencies.news.record(Math.max(0, (received.get(revision) ?? Number.NaN) - answered));
    received.clear();
    await sleep(PAUSE_MS * (0.5 + Math.random()));
  }
}

async function askForAll(address: string): Promise<void> {
  const asking = session(address);
  for (; !stopped; await sleep(ASK_EVERY_MS)) {
    const begun = performance.now();
    await callUnary(asking, AgentService.method.getFleet, {});
    const between = performance.now();
    await callUnary(asking, AgentService.method.listAgents, { pageSize: 1_000 });
    latencies.getFleet.record(between - begun);
    latencies.listAgents.record(performance.now() - between);
  }
}

doJobs({
  open: async ({ address, agentIds }: { address: string; agentIds: readonly string[] }) => {
    const { revision } = await callUnary(session(address), AgentService.method.getFleet, {});
    watch(address, revision);
    for (const work of [changeStatuses(address, agentIds), askForAll(address)])
      work.catch((error: unknown) => {
        if (!stopped) failure ??= String(error);
      });
    return {};
  },
  figures: async (): Promise<FleetNews> => {
    const { news, answer, getFleet, listAgents } = latencies;
    latencies = newLatencies();
    return {
      news: news.figures,
      answer: answer.figures,
      getFleet: getFleet.figures,
      listAgents: listAgents.figures,
      ends,
      failure,
    };
  },
  close: async () => {
    stopped = true;
    wake();
    for (const one of sessions) one.destroy();
    return {};
  },
});
