// The cost of validation in a unary call: the same calls through two gRPC listeners of one process, one of which
// validates nothing, in turns. Handlers respond at once, so this is the maximum share of validation.
import { mock } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { create, type DescMethod, toBinary } from "@bufbuild/protobuf";
import { pino } from "pino";
import { AgentStatus, ExhaustReason } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { createGrpcListener } from "../../src/rpc/grpc/grpc-listener.ts";
import { createConnectionGate, DEFAULT_CONNECTION_LIMITS } from "../../src/rpc/sockets/connection-gate.ts";
import { compileRuleCheck } from "../../src/rpc/validation/request-check.ts";
import { Metrics } from "../../src/telemetry/metrics/metrics.ts";
import { doJobs } from "../harness/jobs.ts";
import { callUnary, connect } from "./wire.ts";

type PipelineModule = typeof import("../../src/rpc/pipeline/pipeline.ts");

/** The median of these is the figure of a round. */
const CALLS = 400;

export interface RuleFigures {
  readonly what: string;
  readonly bytes: number;
  /** Microseconds of a call, and of the validation alone. */
  readonly withoutUs: number;
  readonly withUs: number;
  readonly aloneUs: number;
}

const unchecked = mock.module(new URL("../../src/rpc/validation/request-check.ts", import.meta.url).href, {
  namedExports: { compileRequestCheck: () => undefined },
});
// A name of its own, or the second import would be the first.
const without: PipelineModule = await import(
  new URL("../../src/rpc/pipeline/pipeline.ts?without", import.meta.url).href
);
unchecked.restore();
const withRules: PipelineModule = await import(new URL("../../src/rpc/pipeline/pipeline.ts", import.meta.url).href);

async function start({ createPipeline }: PipelineModule) {
  const log = pino({ level: "silent" });
  const pipeline = createPipeline({ log, metrics: new Metrics() });
  const agents = pipeline.wrap(AgentService, {
    getAgent: () => ({}),
    listAgents: () => ({}),
    updateAgentStatus: () => ({}),
    sendHeartbeat: () => ({}),
    batchGetAgents: () => ({}),
  });
  const listener = createGrpcListener({
    services: [agents],
    log,
    gate: createConnectionGate(DEFAULT_CONNECTION_LIMITS, log),
  });
  return { listener, session: connect(`http://${await listener.start("127.0.0.1:0")}`) };
}

const listeners = { without: await start(without), with: await start(withRules) };

function median(values: number[]): number {
  return values.sort((one, other) => one - other)[Math.floor(values.length / 2)] ?? Number.NaN;
}

async function measure<Method extends DescMethod>(
  what: string,
  method: Method,
  request: MessageInitShape<Method["input"]>,
): Promise<RuleFigures> {
  const taken = { without: [] as number[], with: [] as number[] };
  for (let index = 0; index < CALLS; index++) {
    for (const name of index % 2 === 0 ? (["without", "with"] as const) : (["with", "without"] as const)) {
      const begin = performance.now();
      await callUnary(listeners[name].session, method, request);
      taken[name].push((performance.now() - begin) * 1_000);
    }
  }
  const message = create(method.input, request);
  const check = compileRuleCheck(method.input);
  const begin = performance.now();
  for (let index = 0; index < CALLS; index++) check?.(message);
  const aloneUs = ((performance.now() - begin) * 1_000) / CALLS;
  const bytes = toBinary(method.input, message).length;
  return { what, bytes, withoutUs: median(taken.without), withUs: median(taken.with), aloneUs };
}

const { getAgent, listAgents, updateAgentStatus, sendHeartbeat, batchGetAgents } = AgentService.method;
const exhaustion = {
  reason: ExhaustReason.BILLING,
  recovery: { case: "retryAfter", value: { seconds: 30n } },
} as const;
const thousand = Array.from({ length: 1_000 }, (_, index) => `agent-with-a-name-${index}`);

doJobs({
  round: async () => ({
    rounds: [
      await measure("GetAgent", getAgent, { key: { case: "agentId", value: "scribe-7" } }),
      await measure("ListAgents, empty filter", listAgents, {}),
      await measure("UpdateAgentStatus", updateAgentStatus, { agentId: "scribe-7", status: AgentStatus.BUSY }),
      await measure("UpdateAgentStatus, exhausted, hold", updateAgentStatus, {
        agentId: "scribe-7",
        status: AgentStatus.EXHAUSTED,
        exhaustion,
        hold: { seconds: 5n },
        requestId: "claim-81",
      }),
      await measure("SendHeartbeat, 1 beat", sendHeartbeat, { beats: [{ agentId: "scribe-7" }] }),
      await measure("SendHeartbeat, 1 000 beats", sendHeartbeat, { beats: thousand.map((agentId) => ({ agentId })) }),
      await measure("BatchGetAgents, 1 000 ids", batchGetAgents, { agentIds: thousand }),
    ],
  }),
});
