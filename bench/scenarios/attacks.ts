import { MemoryPeak } from "../harness/memory-peak.ts";
import { Worker } from "../harness/processes.ts";
import { informs, type Measure, type Scenario } from "../harness/scenario.ts";
import { seedAgents } from "../harness/stage.ts";
import { ATTACKS, type AttackFigures } from "../load/attacks.ts";
import type { NeighbourFigures } from "../load/neighbour.ts";

const AGENTS = 2_000;
const ATTACK_MS = 15_000;
/** The times before and after the attack, in milliseconds. */
const AROUND_MS = 1_000;
const SAMPLE_MS = 50;
const GOAL_MS = 250;

/**
 * Each attack that makes the service store or compute much for little input: its effect on a well-behaved client and on
 * memory.
 */
export const attacks: Scenario = {
  name: "attacks",
  title: "A client beside hostile callers",
  named: true,
  async run(stage, bench) {
    const url = await stage.database("bench_attacks");
    await seedAgents(stage, url, { prefix: "single-", count: AGENTS });
    const measures: Measure[] = [];
    const wanted = process.env.ATTACKS?.split(";");
    for (const attack of ["nothing", ...Object.keys(ATTACKS)]) {
      if (wanted !== undefined && !wanted.some((part) => attack.includes(part))) continue;
      // Each attack has a new replica.
      await using undo = new AsyncDisposableStack();
      const replica = undo.use(await stage.replica(url));
      const hostile = undo.use(new Worker("load/attacks.ts", "load"));
      const neighbour = undo.use(new Worker("load/neighbour.ts", "load"));
      const peak = undo.use(new MemoryPeak(replica.pid, SAMPLE_MS));
      await neighbour.do("call", { address: replica.grpc, prefix: "single-", ms: 2_000 });
      const idleMib = peak.most / 1_048_576;
      peak.most = 0;
      const job = { grpc: replica.grpc, http: replica.http, attack, ms: ATTACK_MS, prefix: "single-", agents: AGENTS };
      const attacking = attack === "nothing" ? undefined : hostile.do<AttackFigures>("attack", job);
      const disturbed = await neighbour.do<NeighbourFigures>("call", {
        address: replica.grpc,
        prefix: "single-",
        ms: ATTACK_MS - AROUND_MS,
      });
      const sent = await attacking;
      const mostMib = peak.most / 1_048_576;
      bench.note(
        `${attack}: ${Math.round((sent?.sent ?? 0) / ((sent?.ms ?? 1) / 1_000))} /s of ${Math.round((sent?.sentBytes ?? 0) / Math.max(1, sent?.sent ?? 1))} bytes, ` +
          `${sent?.refused ?? 0} refused (${sent?.exhausted ?? 0} as too much${sent?.otherRefusal === undefined ? "" : `; else ${sent.otherRefusal}`}); neighbour: ${disturbed.count} calls, ` +
          `${disturbed.failures} failed ${disturbed.firstFailure}, p50 ${disturbed.p50Ms.toFixed(1)}, p99 ${disturbed.p99Ms.toFixed(1)} ms; ` +
          `${Math.round(idleMib)} → ${Math.round(mostMib)} MiB`,
      );
      measures.push(
        { ...informs(`${attack}: a neighbour's call, p99`, "ms", [disturbed.p99Ms]), must: GOAL_MS },
        informs(`${attack}: … p50`, "ms", [disturbed.p50Ms]),
        informs(`${attack}: resident memory at most`, "MiB", [mostMib]),
      );
    }
    return measures;
  },
};
