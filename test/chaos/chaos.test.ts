import { expect, it } from "vitest";
import { FAULTS } from "./faults.ts";
import { report } from "./report.ts";
import { runChaos } from "./run-chaos.ts";

const SEED = Number(process.env.HARBORFORGE_CHAOS_SEED || "1");
/** Those that take longer than a short run has: a mass silence has six leases, a rolling restart three starts. */
const LONG: ReadonlySet<string> = new Set(["kill-many", "roll"]);

it(`a fleet lives through everything that fails, seed ${SEED}`, { timeout: 150_000 }, async () => {
  const lines: string[] = [];
  const result = await runChaos({
    seed: SEED,
    forMs: 9_000,
    agents: 2_000,
    claws: 20,
    intervalMs: 1_000,
    faults: Object.keys(FAULTS).filter((kind) => !LONG.has(kind)),
    atOnce: 4,
    // Other tests run on the same cores.
    slackMs: 3_000,
    reportsPerSecond: 100,
    onLine: (line) => lines.push(line),
  });
  expect(result.transitions).toBeGreaterThan(2_000);
  expect(result.violations.length, [...lines, ...report(result, 3)].join("\n")).toBe(0);
});
