/**
 * Readers that stop reading for almost a minute (after a whole one the door ends the stream):
 * `node bench/watch-stalled.ts [stalled watchers, 200] [seconds, 55]`.
 *
 * Watchers of everything, half of them conflating, each on a connection of its own with the usual window of 64 KiB, stop
 * reading while 20 000 agents change by the thousand. Told are what each of them costs the server's memory, and what
 * that does to a watcher that reads. Afterwards they read on: who conflates comes to the newest state.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { AgentStatus } from "../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentService } from "../gen/harborforge/agents/v1/agent_service_pb.ts";
import { loadAgents, quantile, report, startBenchService } from "./watch-service.ts";
import { callUnary, connect, openCountingWatch } from "./watch-wire.ts";

const [stalled = 200, seconds = 55] = process.argv.slice(2).map(Number);
const AGENTS = 20_000;
const CHANGED = 1_000;
const WINDOW_BYTES = 65_535;
const QUIET_S = 20;

await using service = await startBenchService(1);
const [replica] = service.replicas;
if (replica === undefined) throw new Error("there is no replica");
await loadAgents(service.databaseUrl, AGENTS, 100);
const writer = connect(replica.grpc);
const { revision } = await callUnary(writer, AgentService.method.getFleet, {});

let round = 0;
let transitions = 0;
let goal = 0;
let reached = () => undefined as unknown;
const quick = openCountingWatch(connect(replica.grpc), { afterRevision: revision }, (count) => {
  if (count.changes >= goal) reached();
});

/** Changes agents for a while. Returns how long the quick watcher took to know, from the answers on, and the most memory. */
async function disturb(forMs: number): Promise<{ delays: number[]; mostMb: number }> {
  const delays: number[] = [];
  let mostMb = 0;
  const until = performance.now() + forMs;
  while (performance.now() < until) {
    const status = Math.floor((round * CHANGED) / AGENTS) % 2 === 0 ? AgentStatus.BUSY : AgentStatus.IDLE;
    const first = (round * CHANGED) % AGENTS;
    const beats = Array.from({ length: CHANGED }, (_, n) => ({ agentId: `agent-${first + n}`, status }));
    round += 1;
    goal = transitions + CHANGED;
    const heard = new Promise<number>((resolve) => {
      reached = () => resolve(performance.now());
    });
    await callUnary(writer, AgentService.method.sendHeartbeat, { beats, leaseTtl: { seconds: 600n } });
    const answered = performance.now();
    delays.push(Math.max(0, (await heard) - answered));
    transitions += CHANGED;
    mostMb = Math.max(mostMb, replica?.rssMb() ?? 0);
    await sleep(100);
  }
  return { delays, mostMb };
}

const refusals: string[] = [];
const before = await disturb(QUIET_S * 1_000);
const held = Array.from({ length: stalled }, (_, n) => {
  const request = { afterRevision: revision + BigInt(transitions), conflate: n % 2 === 0 };
  const session = connect(replica.grpc, WINDOW_BYTES);
  session.on("error", () => undefined);
  return openCountingWatch(session, request, undefined, (refusal) => refusals.push(refusal));
});
while (held.some(({ count }) => count.bookmarks === 0 && count.changes === 0)) await sleep(50);
for (const { stream } of held) stream.pause();
const told = transitions;
const during = await disturb(seconds * 1_000);
for (const { stream } of held) stream.resume();
await sleep(5_000);
const after = await disturb(QUIET_S * 1_000);
const conflating = held.filter((_, n) => n % 2 === 0);
const row = (when: string, { delays, mostMb }: typeof before) => ({
  when,
  "quick watcher p50 ms": Number(quantile(delays, 0.5).toFixed(1)),
  "p99 ms": Number(quantile(delays, 0.99).toFixed(1)),
  "MiB, at most": Math.round(mostMb),
  "KiB for each that stands still": Math.round(((mostMb - before.mostMb) * 1_024) / stalled),
});
report("watch-stalled", [
  row("nobody stands still", before),
  row(`${stalled} stand still`, during),
  row("they read on", after),
]);
console.log(`${transitions - told} transitions since they began to stand still`);
console.log(
  `of those that do not conflate ${refusals.length} of ${held.length - conflating.length} were told: ${refusals[0]}`,
);
const changes = conflating.map(({ count }) => count.changes);
console.log(`those that conflate were told ${Math.min(...changes)} to ${Math.max(...changes)} changes`);
process.exitCode = refusals.length === held.length - conflating.length ? 0 : 1;
for (const { stream } of [quick, ...held]) stream.session?.destroy();
writer.destroy();
