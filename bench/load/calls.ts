// Makes unary calls with a fixed number of concurrent ones.
import { create, toBinary } from "@bufbuild/protobuf";
import grpc from "@grpc/grpc-js";
import { GetAgentRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { doJobs } from "../harness/jobs.ts";
import { Latency, type LatencyFigures } from "./latency.ts";

export interface CallFigures extends LatencyFigures {
  readonly calls: number;
  readonly ms: number;
  /** Processor time of this process: if it is near `ms`, the load generator was the limit. */
  readonly loadCpuMs: number;
}

const identity = (buffer: Buffer): Buffer => buffer;

doJobs({
  count: async (job: {
    address: string;
    path: string;
    prefix: string;
    agents: number;
    underway: number;
    ms: number;
  }): Promise<CallFigures> => {
    const client = new grpc.Client(job.address, grpc.credentials.createInsecure());
    const requests = Array.from({ length: job.agents }, (_, n) => {
      const key = { case: "agentId", value: `${job.prefix}${n + 1}` } as const;
      return Buffer.from(toBinary(GetAgentRequestSchema, create(GetAgentRequestSchema, { key })));
    });
    const latency = new Latency();
    const cpu = process.cpuUsage();
    const begin = performance.now();
    let calls = 0;
    const caller = async (n: number): Promise<void> => {
      for (let turn = n; performance.now() - begin < job.ms; turn += job.underway) {
        const request = requests[turn % requests.length] ?? Buffer.alloc(0);
        const sentAt = performance.now();
        await new Promise<void>((resolve, reject) => {
          client.makeUnaryRequest(job.path, identity, identity, request, (error) =>
            error === null ? resolve() : reject(error),
          );
        });
        latency.record(performance.now() - sentAt);
        calls += 1;
      }
    };
    await Promise.all(Array.from({ length: job.underway }, (_, n) => caller(n)));
    const ms = performance.now() - begin;
    const { user, system } = process.cpuUsage(cpu);
    client.close();
    return { calls, ms, loadCpuMs: (user + system) / 1_000, ...latency.figures };
  },
});
