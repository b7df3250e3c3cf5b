// A well-behaved client beside hostile ones: a few calls in a second, each on time, whatever the result of the last
// one.
import { setTimeout as sleep } from "node:timers/promises";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { doJobs } from "../harness/jobs.ts";
import { Latency, type LatencyFigures } from "./latency.ts";
import { callUnary, connect } from "./wire.ts";

export interface NeighbourFigures extends LatencyFigures {
  readonly failures: number;
  readonly firstFailure: string;
}

/** Calls of each kind in a second. */
const PER_SECOND = 20;

doJobs({
  /** Reads an agent and renews another one by a heartbeat until the time is over. Waits for running calls. */
  call: async (job: { address: string; prefix: string; ms: number }): Promise<NeighbourFigures> => {
    const session = connect(`http://${job.address}`);
    const latency = new Latency();
    let failures = 0;
    let firstFailure = "";
    const underway = new Set<Promise<void>>();
    const timed = (call: Promise<unknown>): void => {
      const sentAt = performance.now();
      const done = call
        .then(
          () => latency.record(performance.now() - sentAt),
          (error: unknown) => {
            failures += 1;
            latency.record(performance.now() - sentAt);
            if (firstFailure === "") firstFailure = String(error);
          },
        )
        .finally(() => underway.delete(done));
      underway.add(done);
    };
    const begin = performance.now();
    for (let turn = 0; performance.now() - begin < job.ms; turn += 1) {
      const agentId = `${job.prefix}${(turn % 100) + 1}`;
      timed(callUnary(session, AgentService.method.getAgent, { key: { case: "agentId", value: agentId } }));
      const beats = [{ agentId, status: AgentStatus.IDLE }];
      timed(callUnary(session, AgentService.method.sendHeartbeat, { beats, leaseTtl: { seconds: 600n } }));
      await sleep(Math.max(0, begin + ((turn + 1) * 1_000) / PER_SECOND - performance.now()));
    }
    await Promise.all(underway);
    session.destroy();
    return { ...latency.figures, failures, firstFailure };
  },
});
