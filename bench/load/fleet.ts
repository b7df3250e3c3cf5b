// A fleet that keeps the server's pace: many agents share a stream, and each stream sends the beats of all its agents
// when they are due.
import { fromBinary } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import grpc from "@grpc/grpc-js";
import { HeartbeatResponseSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { doJobs } from "../harness/jobs.ts";
import { AGENTS_PER_CLAW } from "../harness/stage.ts";
import { beatsOf, furtherBeatsOf, withSequence } from "./beat-messages.ts";

export interface FleetJob {
  readonly address: string;
  readonly streams: number;
  readonly agentsPerStream: number;
  readonly connections: number;
  readonly prefix: string;
  /** Streams opened in a second, because a real fleet connects gradually. */
  readonly perSecond: number;
}

export interface FleetFigures {
  /** Acknowledged messages since the last query, and rejected beats. */
  readonly acknowledged: number;
  readonly refused: number;
  readonly slowestMs: number;
  /** Streams that ended unexpectedly. */
  readonly ended: number;
}

const identity = (buffer: Buffer): Buffer => buffer;
let figures = { acknowledged: 0, refused: 0, slowestMs: 0, ended: 0 };
/** Functions that cut each stream off without a goodbye. */
const cuts: (() => void)[] = [];
const clients: grpc.Client[] = [];

function open(job: FleetJob, n: number, acknowledged: () => void): void {
  const client = clients[n % clients.length];
  if (client === undefined) throw new TypeError("no connection");
  const first = n * job.agentsPerStream;
  const agentIds = Array.from({ length: job.agentsPerStream }, (_, index) => `${job.prefix}${first + index + 1}`);
  const further = furtherBeatsOf(agentIds);
  const call = client.makeBidiStreamRequest("/harborforge.agents.v1.AgentService/Heartbeat", identity, identity);
  let sequence = 0;
  let sentAt = 0;
  let silent = false;
  let timer: NodeJS.Timeout | undefined;
  const send = (beats: Buffer): void => {
    if (silent) return;
    sequence += 1;
    sentAt = performance.now();
    call.write(withSequence(sequence, beats));
  };
  const ended = (): void => {
    if (!silent) figures.ended += 1;
    silent = true;
  };
  cuts.push(() => {
    silent = true;
    clearTimeout(timer);
    call.cancel();
  });
  call.on("data", (bytes: Buffer) => {
    const { acknowledgedSequence, nextHeartbeatIn, results } = fromBinary(HeartbeatResponseSchema, bytes);
    for (const { error } of results) if (error !== undefined) figures.refused += 1;
    if (Number(acknowledgedSequence) !== sequence || sequence === 0) return;
    acknowledged();
    figures.acknowledged += 1;
    figures.slowestMs = Math.max(figures.slowestMs, performance.now() - sentAt);
    const pace = nextHeartbeatIn === undefined ? 10_000 : durationMs(nextHeartbeatIn);
    clearTimeout(timer);
    timer = setTimeout(send, Math.max(0, pace - (performance.now() - sentAt)), further);
  });
  call.on("error", ended);
  call.on("end", ended);
  send(beatsOf(agentIds, `claw-${Math.floor(first / AGENTS_PER_CLAW)}`, `fleet-${n}`));
}

doJobs({
  /** Opens all streams. Resolves when each has an acknowledged message. */
  open: async ({ fleet }: { fleet: FleetJob }) => {
    for (let n = 0; n < fleet.connections; n += 1) {
      clients.push(
        new grpc.Client(fleet.address, grpc.credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 }),
      );
    }
    const begin = performance.now();
    const received = new Set<number>();
    for (let n = 0; n < fleet.streams; n += 1) {
      open(fleet, n, () => received.add(n));
      const due = begin + (n / fleet.perSecond) * 1_000;
      if (due > performance.now()) await new Promise((resolve) => setTimeout(resolve, due - performance.now()));
    }
    while (received.size < fleet.streams) {
      if (figures.ended > 0) throw new Error("a stream ended");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return { ms: performance.now() - begin };
  },
  figures: async (): Promise<FleetFigures> => {
    const taken = figures;
    figures = { acknowledged: 0, refused: 0, slowestMs: 0, ended: taken.ended };
    return taken;
  },
  /** Cuts off the first `streams` streams, without a goodbye. */
  silence: async ({ streams }: { streams: number }) => {
    for (const cut of cuts.slice(0, streams)) cut();
    return {};
  },
  close: async () => {
    for (const cut of cuts) cut();
    for (const client of clients) client.close();
    return {};
  },
});
