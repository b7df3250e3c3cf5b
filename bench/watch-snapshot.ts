/**
 * How long a snapshot takes a new watcher, and what it costs: `node bench/watch-snapshot.ts [agents, 100000 200000] …`.
 * Five snapshots of each size, one after the other, of a fleet that is silent.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { loadAgents, quantile, report, startBenchService } from "./watch-service.ts";
import { connect, openCountingWatch } from "./watch-wire.ts";

const given = process.argv.slice(2).map(Number);
const sizes = given.length > 0 ? given : [100_000, 200_000];
const ROUNDS = 5;

const rows: Record<string, number>[] = [];
for (const agents of sizes) {
  await using service = await startBenchService(1);
  const [replica] = service.replicas;
  if (replica === undefined) throw new Error("there is no replica");
  await loadAgents(service.databaseUrl, agents, 1_000);
  await sleep(3_000);
  const times: number[] = [];
  const cpu: number[] = [];
  let bytes = 0;
  const rest = replica.rssMb();
  let most = rest;
  const sampler = setInterval(() => {
    most = Math.max(most, replica.rssMb());
  }, 20);
  for (let round = 0; round < ROUNDS; round += 1) {
    const session = connect(replica.grpc);
    const [before, start] = [replica.cpuMs(), performance.now()];
    await new Promise<void>((resolve) => {
      openCountingWatch(session, {}, (count) => {
        bytes = count.bytes;
        if (count.snapshotAgents >= agents) resolve();
      });
    });
    times.push(performance.now() - start);
    cpu.push(((replica.cpuMs() - before) / agents) * 1_000);
    session.destroy();
    await sleep(500);
  }
  clearInterval(sampler);
  rows.push({
    agents,
    "median s": Number((quantile(times, 0.5) / 1_000).toFixed(2)),
    "least s": Number((quantile(times, 0) / 1_000).toFixed(2)),
    "most s": Number((quantile(times, 1) / 1_000).toFixed(2)),
    "server CPU, µs an agent": Number(quantile(cpu, 0.5).toFixed(1)),
    "bytes an agent": Math.round(bytes / agents),
    "MiB more than at rest, at most": Math.round(most - rest),
  });
}
report("watch-snapshot", rows);
