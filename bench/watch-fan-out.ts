/**
 * How many events a second reach watchers: `node bench/watch-fan-out.ts [watchers, 1000] [rounds, 7]`.
 *
 * One replica, its watchers of everything on ten connections of the gRPC door. A round changes a number of agents by one
 * unary heartbeat and lasts until every watcher has been told of all of them; nothing else waits meanwhile. Three sizes of
 * rounds, alternating: the more news there is at once, the less each costs.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { AgentStatus } from "../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentService } from "../gen/harborforge/agents/v1/agent_service_pb.ts";
import { median, quantile, report, startBenchService } from "./watch-service.ts";
import { callUnary, connect, createAgents, openCountingWatch } from "./watch-wire.ts";

const [watchers = 1_000, rounds = 7] = process.argv.slice(2).map(Number);
const SIZES = [10, 100, 1_000];
const CONNECTIONS = 10;

await using service = await startBenchService(1);
const [replica] = service.replicas;
if (replica === undefined) throw new Error("there is no replica");
await createAgents(replica.grpc, Math.max(...SIZES), 10);

let told = 0;
let goal = Number.POSITIVE_INFINITY;
let reached = () => undefined as unknown;
const sessions = Array.from({ length: CONNECTIONS }, () => connect(replica.grpc));
const before = replica.rssMb();
const watches = Array.from({ length: watchers }, (_, n) => {
  let known = 0;
  const session = sessions[n % CONNECTIONS] ?? connect(replica.grpc);
  return openCountingWatch(session, {}, (count) => {
    told += count.changes - known;
    known = count.changes;
    if (told >= goal) reached();
  });
});
while (watches.some(({ count }) => count.snapshotAgents < Math.max(...SIZES))) await sleep(50);
await sleep(1_000);
const memory = (replica.rssMb() - before) / watchers;

const writer = connect(replica.grpc);
const busy: boolean[] = [];
const results = SIZES.map((size) => ({ size, perSecond: [] as number[], cpu: [] as number[], own: [] as number[] }));
for (let round = 0; round < rounds + 1; round += 1) {
  for (const { size, perSecond, cpu, own } of results) {
    const beats = Array.from({ length: size }, (_, n) => {
      busy[n] = busy[n] !== true;
      return { agentId: `agent-${n}`, status: busy[n] ? AgentStatus.BUSY : AgentStatus.IDLE };
    });
    const events = size * watchers;
    const done = new Promise((resolve) => {
      reached = () => resolve(undefined);
    });
    goal = told + events;
    const [cpuBefore, ownBefore, begun] = [replica.cpuMs(), process.cpuUsage(), performance.now()];
    await callUnary(writer, AgentService.method.sendHeartbeat, { beats, leaseTtl: { seconds: 600n } });
    await done;
    const tookMs = performance.now() - begun;
    // The first round warms up.
    if (round > 0) {
      perSecond.push((events / tookMs) * 1_000);
      cpu.push(((replica.cpuMs() - cpuBefore) / events) * 1_000);
      const { user, system } = process.cpuUsage(ownBefore);
      own.push((user + system) / events);
    }
    await sleep(200);
  }
}
report(
  "watch-fan-out",
  results.map(({ size, perSecond, cpu, own }) => ({
    watchers,
    "agents a round": size,
    "events/s": Math.round(median(perSecond)),
    least: Math.round(quantile(perSecond, 0)),
    most: Math.round(quantile(perSecond, 1)),
    "server CPU, µs an event": Number(median(cpu).toFixed(2)),
    "client CPU, µs an event": Number(median(own).toFixed(2)),
    "KiB a watcher": Number((memory * 1_024).toFixed(1)),
  })),
);
for (const session of [...sessions, writer]) session.destroy();
