import { setTimeout as sleep } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { HeartbeatRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";

const METHOD = "/harborforge.agents.v1.AgentService/Heartbeat";
const BEATS = 1_000;
/** Enough to matter, and little enough that the two cores of a test are left to the others. */
const MESSAGES_PER_SECOND = 40;
const STREAMS = 300;

export type FloodKind = "reports" | "isolated" | "streams" | "giants";

/**
 * A client that misbehaves in every way for a time, on a connection of its own: too many reports, unread
 * responses, streams opened and cancelled by the hundred, messages beyond the limit.
 *
 * @param agentIds its agents, which no other client should use
 */
export async function flood(kind: FloodKind, port: number, agentIds: readonly string[], forMs: number): Promise<void> {
  const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
  });
  const deadline = performance.now() + forMs;
  try {
    if (kind === "streams") await openAndCancel(client, deadline);
    else await shout(client, kind, agentIds, deadline);
  } finally {
    client.close();
  }
}

async function shout(
  client: grpc.Client,
  kind: Exclude<FloodKind, "streams">,
  agentIds: readonly string[],
  deadline: number,
): Promise<void> {
  while (performance.now() < deadline) {
    const call = open(client);
    let over = false;
    call.on("status", () => {
      over = true;
    });
    if (kind === "isolated") call.pause();
    else call.on("data", () => undefined);
    for (let sequence = 1n; !over && performance.now() < deadline; sequence += 1n) {
      const bytes = kind === "giants" ? Buffer.alloc(2 * 1_048_576) : message(sequence, agentIds);
      // The window of the connection is the server's only back-pressure.
      if (call.write(bytes)) await sleep(1_000 / MESSAGES_PER_SECOND);
      else await sleep(50);
      if (call.writableLength > 8 * 1_048_576) await sleep(200);
    }
    call.cancel();
    await sleep(20);
  }
}

async function openAndCancel(client: grpc.Client, deadline: number): Promise<void> {
  while (performance.now() < deadline) {
    const calls = Array.from({ length: STREAMS }, () => open(client).on("data", () => undefined));
    await sleep(100);
    for (const call of calls) call.cancel();
    await sleep(100);
  }
}

function open(client: grpc.Client): grpc.ClientDuplexStream<Buffer, Buffer> {
  const call = client.makeBidiStreamRequest(
    METHOD,
    (bytes: Buffer) => bytes,
    (bytes: Buffer) => bytes,
  );
  call.on("error", () => undefined);
  return call;
}

function message(sequence: bigint, agentIds: readonly string[]): Buffer {
  const statuses = [AgentStatus.IDLE, AgentStatus.BUSY, AgentStatus.ON_CALL];
  const beats = Array.from({ length: BEATS }, (_, index) => ({
    agentId: agentIds[index % agentIds.length] ?? "",
    status: statuses[(index + Number(sequence)) % statuses.length] ?? AgentStatus.IDLE,
  }));
  return Buffer.from(toBinary(HeartbeatRequestSchema, create(HeartbeatRequestSchema, { sequence, beats })));
}
