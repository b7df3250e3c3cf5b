// Streams that keep the server's pace, each for some agents, until they are told to fall silent.
import { fromBinary } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import grpc from "@grpc/grpc-js";
import { HeartbeatResponseSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { doJobs } from "../harness/jobs.ts";
import { beatsOf, furtherBeatsOf, withSequence } from "./beat-messages.ts";

export interface BeatingStream {
  readonly name: string;
  readonly claw: string;
  readonly agentIds: readonly string[];
}

const CONNECTIONS = 20;
/** Streams opened at once, and the pause before the next ones, so that the fleet does not beat at the same moment. */
const AT_ONCE = 10;
const PAUSE_MS = 30;

const identity = (buffer: Buffer): Buffer => buffer;
const clients: grpc.Client[] = [];
const stops = new Map<string, () => void>();
let failure: string | undefined;
let beats = 0;

function beat(client: grpc.Client, { name, claw, agentIds }: BeatingStream): Promise<void> {
  const call = client.makeBidiStreamRequest("/harborforge.agents.v1.AgentService/Heartbeat", identity, identity);
  const message = furtherBeatsOf(agentIds);
  let sequence = 1;
  let timer: NodeJS.Timeout | undefined;
  let silent = false;
  const acknowledged = Promise.withResolvers<void>();
  call.on("data", (bytes: Buffer) => {
    const { acknowledgedSequence, nextHeartbeatIn, results } = fromBinary(HeartbeatResponseSchema, bytes);
    const refused = results.find(({ error }) => error !== undefined);
    if (refused !== undefined) failure ??= `${refused.agentId} was refused: ${refused.error?.message}`;
    if (silent || Number(acknowledgedSequence) !== sequence) return;
    acknowledged.resolve();
    beats += agentIds.length;
    clearTimeout(timer);
    timer = setTimeout(
      () => {
        sequence += 1;
        call.write(withSequence(sequence, message));
      },
      nextHeartbeatIn === undefined ? 1_000 : durationMs(nextHeartbeatIn),
    );
  });
  call.on("error", (error) => {
    if (silent) return;
    failure ??= error.message;
    acknowledged.reject(error);
  });
  // Cut off without a goodbye: its leases continue.
  stops.set(name, () => {
    silent = true;
    clearTimeout(timer);
    call.cancel();
  });
  call.write(withSequence(sequence, beatsOf(agentIds, claw, name)));
  return acknowledged.promise;
}

doJobs({
  open: async ({ address, streams }: { address: string; streams: readonly BeatingStream[] }) => {
    for (let n = 0; n < CONNECTIONS; n += 1)
      clients.push(
        new grpc.Client(address, grpc.credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 }),
      );
    const opened: Promise<void>[] = [];
    for (const [n, stream] of streams.entries()) {
      const client = clients[n % CONNECTIONS];
      if (client !== undefined) opened.push(beat(client, stream));
      if (n % AT_ONCE === AT_ONCE - 1) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    await Promise.all(opened);
    return {};
  },
  /** Acknowledged beats so far. */
  beats: async () => {
    if (failure !== undefined) throw new Error(failure);
    return { beats };
  },
  silence: async ({ names }: { names: readonly string[] }) => {
    if (failure !== undefined) throw new Error(failure);
    for (const name of names) stops.get(name)?.();
    return {};
  },
  close: async () => {
    for (const stop of stops.values()) stop();
    for (const client of clients) client.close();
    return {};
  },
});
