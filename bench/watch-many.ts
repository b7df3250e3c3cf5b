/**
 * Many watchers of one agent each: `node bench/watch-many.ts [watchers, 10000] [rounds, 20]`.
 *
 * A round changes a thousand agents by one heartbeat; each is news for one watcher. What counts is the time from the
 * answer until a watcher knows, and what an event costs the server while all others are silent.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { AgentStatus } from "../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentService } from "../gen/harborforge/agents/v1/agent_service_pb.ts";
import { loadAgents, quantile, report, startBenchService } from "./watch-service.ts";
import { callUnary, connect, openCountingWatch } from "./watch-wire.ts";

const [watchers = 10_000, rounds = 20] = process.argv.slice(2).map(Number);
const CHANGED = 1_000;
const CONNECTIONS = 10;

await using service = await startBenchService(1);
const [replica] = service.replicas;
if (replica === undefined) throw new Error("there is no replica");
await loadAgents(service.databaseUrl, watchers, 100);

const sessions = Array.from({ length: CONNECTIONS }, () => connect(replica.grpc));
const memory = replica.rssMb();
let told = 0;
let arrivals: number[] = [];
let goal = Number.POSITIVE_INFINITY;
let reached = () => undefined as unknown;
const begun = performance.now();
const watches = Array.from({ length: watchers }, (_, n) => {
  let known = 0;
  const session = sessions[n % CONNECTIONS] ?? connect(replica.grpc);
  return openCountingWatch(session, { filter: { agentIds: [`agent-${n}`] } }, (count) => {
    if (count.changes === known) return;
    told += count.changes - known;
    known = count.changes;
    arrivals.push(performance.now());
    if (told >= goal) reached();
  });
});
while (watches.some(({ count }) => count.snapshotAgents === 0)) await sleep(20);
const openMs = performance.now() - begun;
await sleep(2_000);
const kibEach = ((replica.rssMb() - memory) * 1_024) / watchers;

const writer = connect(replica.grpc);
const delays: number[] = [];
const cpu: number[] = [];
for (let round = 0; round < rounds; round += 1) {
  const status = Math.floor(round / (watchers / CHANGED)) % 2 === 0 ? AgentStatus.BUSY : AgentStatus.IDLE;
  const first = (round * CHANGED) % watchers;
  const beats = Array.from({ length: CHANGED }, (_, n) => ({ agentId: `agent-${first + n}`, status }));
  arrivals = [];
  goal = told + CHANGED;
  const done = new Promise((resolve) => {
    reached = () => resolve(undefined);
  });
  const before = replica.cpuMs();
  await callUnary(writer, AgentService.method.sendHeartbeat, { beats, leaseTtl: { seconds: 600n } });
  const answered = performance.now();
  await done;
  for (const at of arrivals) delays.push(Math.max(0, at - answered));
  cpu.push(((replica.cpuMs() - before) / CHANGED) * 1_000);
  await sleep(300);
}
report("watch-many", [
  {
    watchers,
    "open all, s": Number((openMs / 1_000).toFixed(1)),
    "KiB a watcher": Number(kibEach.toFixed(1)),
    "p50 ms": Number(quantile(delays, 0.5).toFixed(1)),
    "p99 ms": Number(quantile(delays, 0.99).toFixed(1)),
    "server CPU, µs a change, heartbeat included": Math.round(quantile(cpu, 0.5)),
  },
]);
for (const session of [...sessions, writer]) session.destroy();
