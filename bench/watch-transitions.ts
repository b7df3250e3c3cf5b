/**
 * How many transitions a second are committed: `node bench/watch-transitions.ts [streams, 1000] [seconds, 10]`.
 *
 * Heartbeat streams of one agent each, on ten connections. Each reports another status as soon as its last report was
 * acknowledged, which is after the commit. Counted are acknowledgements; each of them is a transition.
 */
import type http2 from "node:http2";
import { setTimeout as sleep } from "node:timers/promises";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { AgentStatus } from "../gen/harborforge/agents/v1/agent_pb.ts";
import {
  AgentService,
  HeartbeatRequestSchema,
  HeartbeatResponseSchema,
} from "../gen/harborforge/agents/v1/agent_service_pb.ts";
import { quantile, report, startBenchService } from "./watch-service.ts";
import { connect, createAgents } from "./watch-wire.ts";

const [streams = 1_000, seconds = 10] = process.argv.slice(2).map(Number);
const CONNECTIONS = 10;

await using service = await startBenchService(1);
const [replica] = service.replicas;
if (replica === undefined) throw new Error("there is no replica");
await createAgents(replica.grpc, streams, 10);

let acknowledged = 0;
let waits: number[] = [];

function sendReport(stream: http2.ClientHttp2Stream, agentId: string, sequence: bigint): void {
  const status = sequence % 2n === 1n ? AgentStatus.BUSY : AgentStatus.IDLE;
  const bytes = toBinary(
    HeartbeatRequestSchema,
    create(HeartbeatRequestSchema, { sequence, beats: [{ agentId, status }] }),
  );
  const frame = Buffer.alloc(5 + bytes.length);
  frame.writeUInt32BE(bytes.length, 1);
  frame.set(bytes, 5);
  stream.write(frame);
}

function beat(session: http2.ClientHttp2Session, agentId: string): void {
  const stream = session.request({
    ":method": "POST",
    ":path": `/${AgentService.typeName}/Heartbeat`,
    "content-type": "application/grpc",
    te: "trailers",
  });
  let sequence = 1n;
  let sentAt = performance.now();
  let rest: Buffer = Buffer.alloc(0);
  stream.on("error", () => undefined);
  stream.on("data", (chunk: Buffer) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(1)) {
      const end = 5 + rest.readUInt32BE(1);
      const message = fromBinary(HeartbeatResponseSchema, rest.subarray(5, end));
      rest = rest.subarray(end);
      if (message.acknowledgedSequence < sequence) continue;
      acknowledged += 1;
      waits.push(performance.now() - sentAt);
      sequence += 1n;
      sentAt = performance.now();
      sendReport(stream, agentId, sequence);
    }
  });
  sendReport(stream, agentId, sequence);
}

const sessions = Array.from({ length: CONNECTIONS }, () => connect(replica.grpc));
for (let n = 0; n < streams; n += 1) beat(sessions[n % CONNECTIONS] ?? connect(replica.grpc), `agent-${n}`);
await sleep(3_000);
waits = [];
const perSecond: number[] = [];
const before = replica.cpuMs();
const total = acknowledged;
for (let second = 0; second < seconds; second += 1) {
  const [begun, known] = [performance.now(), acknowledged];
  await sleep(1_000);
  perSecond.push(((acknowledged - known) / (performance.now() - begun)) * 1_000);
}
report("watch-transitions", [
  {
    streams,
    "transitions/s": Math.round(quantile(perSecond, 0.5)),
    least: Math.round(quantile(perSecond, 0)),
    most: Math.round(quantile(perSecond, 1)),
    "report → acknowledged, p50 ms": Number(quantile(waits, 0.5).toFixed(1)),
    "p99 ms": Number(quantile(waits, 0.99).toFixed(1)),
    "server CPU, µs a transition": Number((((replica.cpuMs() - before) / (acknowledged - total)) * 1_000).toFixed(0)),
  },
]);
for (const session of sessions) session.destroy();
