/**
 * What the rules of the contract cost a unary call: the same calls through two gRPC doors of one process, one of whose
 * pipelines checks nothing, in turns. Handlers answer at once, so that this is the most that the rules can weigh.
 *
 *     node --experimental-test-module-mocks bench/rules-cost.ts [calls]
 */
import { mock } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { create, type DescMethod, toBinary } from "@bufbuild/protobuf";
import { pino } from "pino";
import { Registry } from "prom-client";
import { AgentStatus, ExhaustReason } from "../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentService } from "../gen/harborforge/agents/v1/agent_service_pb.ts";
import { createConnectionGate, DEFAULT_CONNECTION_LIMITS } from "../src/rpc/doors/connection-gate.ts";
import { createGrpcDoor } from "../src/rpc/doors/grpc-door.ts";
import { compileRuleCheck } from "../src/rpc/validation/request-check.ts";
import { callUnary, connect } from "./watch-wire.ts";

type PipelineModule = typeof import("../src/rpc/pipeline.ts");

const calls = Number(process.argv[2] ?? 4_000);

const unchecked = mock.module(new URL("../src/rpc/validation/request-check.ts", import.meta.url).href, {
  namedExports: { compileRequestCheck: () => undefined },
});
// A name of its own, or the second import would be the first.
const without: PipelineModule = await import(new URL("../src/rpc/pipeline.ts?without", import.meta.url).href);
unchecked.restore();
const withRules: PipelineModule = await import(new URL("../src/rpc/pipeline.ts", import.meta.url).href);

async function start({ createPipeline }: PipelineModule) {
  const log = pino({ level: "silent" });
  const pipeline = createPipeline({ log, metrics: new Registry() });
  const agents = pipeline.wrap(AgentService, {
    getAgent: () => ({}),
    listAgents: () => ({}),
    updateAgentStatus: () => ({}),
    sendHeartbeat: () => ({}),
    batchGetAgents: () => ({}),
  });
  const door = createGrpcDoor({ services: [agents], log, gate: createConnectionGate(DEFAULT_CONNECTION_LIMITS, log) });
  return { door, session: connect(`http://${await door.start("127.0.0.1:0")}`) };
}

const doors = { without: await start(without), with: await start(withRules) };

function median(values: number[]): number {
  return values.sort((one, other) => one - other)[Math.floor(values.length / 2)] ?? Number.NaN;
}

async function measure<Method extends DescMethod>(
  what: string,
  method: Method,
  request: MessageInitShape<Method["input"]>,
): Promise<void> {
  const taken = { without: [] as number[], with: [] as number[] };
  for (let index = 0; index < calls * 1.25; index++) {
    for (const name of index % 2 === 0 ? (["without", "with"] as const) : (["with", "without"] as const)) {
      const begin = performance.now();
      await callUnary(doors[name].session, method, request);
      // The first fifth warms up.
      if (index >= calls / 4) taken[name].push((performance.now() - begin) * 1_000);
    }
  }
  const message = create(method.input, request);
  const check = compileRuleCheck(method.input);
  const begin = performance.now();
  for (let index = 0; index < calls; index++) check?.(message);
  const alone = ((performance.now() - begin) * 1_000) / calls;
  const [plain, checked] = [median(taken.without), median(taken.with)];
  const bytes = toBinary(method.input, message).length;
  console.log(
    `${what.padEnd(34)} ${String(bytes).padStart(6)} B  without ${plain.toFixed(0).padStart(5)} µs  ` +
      `with ${checked.toFixed(0).padStart(5)} µs  ratio ${(checked / plain).toFixed(3)}  the check alone ${alone.toFixed(1)} µs`,
  );
}

const { getAgent, listAgents, updateAgentStatus, sendHeartbeat, batchGetAgents } = AgentService.method;
const exhaustion = {
  reason: ExhaustReason.BILLING,
  recovery: { case: "retryAfter", value: { seconds: 30n } },
} as const;
const thousand = Array.from({ length: 1_000 }, (_, index) => `agent-with-a-name-${index}`);

await measure("GetAgent", getAgent, { key: { case: "agentId", value: "scribe-7" } });
await measure("ListAgents, empty filter", listAgents, {});
await measure("UpdateAgentStatus BUSY", updateAgentStatus, { agentId: "scribe-7", status: AgentStatus.BUSY });
await measure("UpdateAgentStatus EXHAUSTED, hold", updateAgentStatus, {
  agentId: "scribe-7",
  status: AgentStatus.EXHAUSTED,
  exhaustion,
  hold: { seconds: 5n },
  requestId: "claim-81",
});
await measure("SendHeartbeat, 1 beat", sendHeartbeat, { beats: [{ agentId: "scribe-7" }] });
await measure("SendHeartbeat, 1 000 beats", sendHeartbeat, { beats: thousand.map((agentId) => ({ agentId })) });
await measure("BatchGetAgents, 1 000 ids", batchGetAgents, { agentIds: thousand });

for (const { door, session } of Object.values(doors)) {
  session.close();
  await door.close();
}
