import http2 from "node:http2";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { GetAgentRequestSchema, HeartbeatRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";

const SERVICE = "/harborforge.agents.v1.AgentService/";
const MOST_BYTES = 1_048_576;
const CONNECTIONS = 3;
/** Each a megabyte when decompressed: ten times the budget of a replica that decompressed them on arrival. */
const MESSAGES_PER_SECOND = 600;
const UNDERWAY = 500;
const TICK_MS = 10;

/** A message in its frame, compressed to a thousandth. */
function zipped(message: Uint8Array): Buffer {
  const bytes = gzipSync(message, { level: 9 });
  const head = Buffer.alloc(5);
  head[0] = 1;
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

/**
 * Sends messages of a megabyte in a kilobyte each, as calls and as a stream's first messages, on connections of its own, and
 * stops by itself.
 */
export async function gzipFlood(port: number, forMs: number): Promise<void> {
  const key = { case: "agentId", value: "z".repeat(MOST_BYTES - 64) } as const;
  const beats = Array.from({ length: 1_000 }, () => ({ agentId: "z".repeat(1_000) }));
  const calls = [
    ["GetAgent", zipped(toBinary(GetAgentRequestSchema, create(GetAgentRequestSchema, { key })))],
    ["Heartbeat", zipped(toBinary(HeartbeatRequestSchema, create(HeartbeatRequestSchema, { sequence: 1n, beats })))],
  ] as const;
  const sessions: http2.ClientHttp2Session[] = [];
  let underway = 0;
  const begin = performance.now();
  try {
    for (let turn = 0; performance.now() - begin < forMs; await sleep(TICK_MS)) {
      const due = Math.floor(((performance.now() - begin) * MESSAGES_PER_SECOND) / 1_000);
      for (; turn < due; turn += 1) {
        if (underway >= UNDERWAY) continue;
        const at = turn % CONNECTIONS;
        let session = sessions[at];
        if (session === undefined || session.closed || session.destroyed) {
          session = http2.connect(`http://127.0.0.1:${port}`).on("error", () => undefined);
          session.setMaxListeners(0);
          sessions[at] = session;
        }
        const [method, body] = calls[turn % calls.length] ?? calls[0];
        const headers = { "content-type": "application/grpc", "grpc-encoding": "gzip", te: "trailers" };
        const stream = session.request({ ":method": "POST", ":path": SERVICE + method, ...headers });
        underway += 1;
        stream.on("error", () => undefined);
        stream.once("close", () => {
          underway -= 1;
        });
        stream.resume();
        stream.end(body);
      }
    }
  } finally {
    for (const session of sessions) session.destroy();
  }
}
