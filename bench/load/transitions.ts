// Reports another status on each stream as soon as the last one was acknowledged, which is after its commit.
import type http2 from "node:http2";
import { setTimeout as sleep } from "node:timers/promises";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  AgentService,
  HeartbeatRequestSchema,
  HeartbeatResponseSchema,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { doJobs } from "../harness/jobs.ts";
import { readSequence, withSequence } from "./beat-messages.ts";
import { Latency, type LatencyFigures } from "./latency.ts";
import { connect, framed, openStream, unframer } from "./wire.ts";

const CONNECTIONS = 10;
/** One of this many responses is decoded, to check that nothing was rejected. */
const LOOK_EVERY = 100;

export interface TransitionFigures extends LatencyFigures {
  readonly ms: number;
  readonly loadCpuMs: number;
}

const sessions: http2.ClientHttp2Session[] = [];
let latency = new Latency();
let failure: string | undefined;
let working = false;
const waiting = new Set<() => void>();

function report(session: http2.ClientHttp2Session, agentId: string): void {
  const stream = openStream(session, AgentService.method.heartbeat);
  const bytesOf = (status: AgentStatus) =>
    Buffer.from(toBinary(HeartbeatRequestSchema, create(HeartbeatRequestSchema, { beats: [{ agentId, status }] })));
  const [busy, onCall] = [bytesOf(AgentStatus.BUSY), bytesOf(AgentStatus.ON_CALL)];
  let sequence = 0;
  let sentAt = 0;
  const send = (): void => {
    waiting.delete(send);
    sequence += 1;
    sentAt = performance.now();
    stream.write(framed(withSequence(sequence, sequence % 2 === 1 ? busy : onCall)));
  };
  stream.on("error", (error) => {
    failure ??= error.message;
  });
  stream.on(
    "data",
    unframer((message) => {
      if (readSequence(message) !== sequence) return;
      latency.record(performance.now() - sentAt);
      if (sequence % LOOK_EVERY === 1) {
        const refused = fromBinary(HeartbeatResponseSchema, message).results.find(({ error }) => error !== undefined);
        if (refused !== undefined) failure ??= `${refused.agentId} was refused: ${refused.error?.message}`;
      }
      if (working) send();
      else waiting.add(send);
    }),
  );
  send();
}

doJobs({
  /** Resolves when each stream has reported once. */
  open: async ({ address, streams, prefix }: { address: string; streams: number; prefix: string }) => {
    for (let n = 0; n < CONNECTIONS; n += 1) sessions.push(connect(`http://${address}`));
    for (const [n, session] of Array.from({ length: streams }, (_, n) => [n, sessions[n % CONNECTIONS]] as const))
      if (session !== undefined) report(session, `${prefix}${n + 1}`);
    while (waiting.size < streams) {
      if (failure !== undefined) throw new Error(failure);
      await sleep(20);
    }
    return {};
  },
  work: async () => {
    working = true;
    for (const send of waiting) send();
    return {};
  },
  count: async ({ ms }: { ms: number }): Promise<TransitionFigures> => {
    latency = new Latency();
    const cpu = process.cpuUsage();
    const begin = performance.now();
    await sleep(ms);
    const { user, system } = process.cpuUsage(cpu);
    if (failure !== undefined) throw new Error(failure);
    return { ...latency.figures, ms: performance.now() - begin, loadCpuMs: (user + system) / 1_000 };
  },
  rest: async () => {
    working = false;
    return {};
  },
});
