import { setTimeout as sleep } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { UpdateAgentStatusRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";

const METHOD = "/harborforge.agents.v1.AgentService/UpdateAgentStatus";
const CALLS = 4_000;
const CALLS_AT_ONCE = 200;
/** The test's own process shares the cores with the service. */
const PAUSE_MS = 20;

/** Very many changes of one agent on a connection of their own, which closes before their responses. */
export async function floodWithChanges(port: number, agentId: string): Promise<void> {
  const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
  });
  try {
    for (let call = 0; call < CALLS; call += 1) {
      client.makeUnaryRequest(
        METHOD,
        (bytes: Buffer) => bytes,
        (bytes: Buffer) => bytes,
        change(agentId, call),
        () => undefined,
      );
      if (call % CALLS_AT_ONCE === 0) await sleep(PAUSE_MS);
    }
  } finally {
    client.close();
  }
}

function change(agentId: string, place: number): Buffer {
  const status = place % 2 === 0 ? AgentStatus.BUSY : AgentStatus.ON_CALL;
  return Buffer.from(
    toBinary(UpdateAgentStatusRequestSchema, create(UpdateAgentStatusRequestSchema, { agentId, status, hold: {} })),
  );
}
