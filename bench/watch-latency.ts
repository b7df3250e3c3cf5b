/**
 * How soon watchers know: `node bench/watch-latency.ts [changes, 500]`.
 *
 * Two replicas on one database, a watcher of one agent at each. An internal service sets the agent's status at the first
 * replica; what counts is the time from its answer to the news at either watcher. News that overtakes the answer counts
 * as 0.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { AgentStatus } from "../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentService } from "../gen/harborforge/agents/v1/agent_service_pb.ts";
import { quantile, report, startBenchService } from "./watch-service.ts";
import { callUnary, connect, createAgents, openCountingWatch } from "./watch-wire.ts";

const [changes = 500] = process.argv.slice(2).map(Number);
const WARM_UP = 50;

await using service = await startBenchService(2);
const [same, other] = service.replicas;
if (same === undefined || other === undefined) throw new Error("there are no two replicas");
await createAgents(same.grpc, 1, 1);
const sessions = [same, other].map(({ grpc }) => connect(grpc));
const news = sessions.map((session) => {
  const state = { changes: 0, at: 0, heard: () => undefined as unknown };
  const watch = openCountingWatch(session, { filter: { agentIds: ["agent-0"] } }, (count) => {
    if (count.changes === state.changes) return;
    state.changes = count.changes;
    state.at = performance.now();
    state.heard();
  });
  return { state, watch };
});
while (news.some(({ watch }) => watch.count.snapshotAgents === 0)) await sleep(10);
const writer = connect(same.grpc);
const after = news.map((): number[] => []);
const answers: number[] = [];
for (let n = 0; n < changes + WARM_UP; n += 1) {
  const status = n % 2 === 0 ? AgentStatus.BUSY : AgentStatus.IDLE;
  const heard = news.map(
    ({ state }) =>
      new Promise((resolve) => {
        state.heard = () => resolve(undefined);
      }),
  );
  const begun = performance.now();
  await callUnary(writer, AgentService.method.updateAgentStatus, { agentId: "agent-0", status });
  const answered = performance.now();
  await Promise.all(heard);
  if (n >= WARM_UP) {
    answers.push(answered - begun);
    for (const [place, { state }] of news.entries()) after[place]?.push(Math.max(0, state.at - answered));
  }
  // Not in step with the polls of the log.
  await sleep(Math.random() * 40);
}
const row = (what: string, values: readonly number[]) => ({
  what,
  "p50 ms": Number(quantile(values, 0.5).toFixed(1)),
  "p99 ms": Number(quantile(values, 0.99).toFixed(1)),
  "most ms": Number(quantile(values, 1).toFixed(1)),
});
report("watch-latency", [
  row("answer → watcher, same replica", after[0] ?? []),
  row("answer → watcher, other replica", after[1] ?? []),
  row("request → answer", answers),
]);
for (const session of [...sessions, writer]) session.destroy();
