import { expect, it } from "vitest";
import { FAULTS } from "./faults.ts";
import { report } from "./report.ts";
import { runChaos } from "./run-chaos.ts";

const SEED = Number(process.env.HARBORFORGE_CHAOS_SEED || "1");
/** Faults that take longer than a short run: a mass silence has six leases, a rolling restart three starts. */
const LONG: ReadonlySet<string> = new Set(["kill-many", "roll"]);

// The short form: the long one, of many seeds and all faults, is `npm run test:chaos`.
it(`a fleet survives all faults, seed ${SEED}`, { timeout: 240_000 }, async () => {
  const lines: string[] = [];
  const result = await runChaos({
    seed: SEED,
    forMs: 9_000,
    agents: 2_000,
    claws: 20,
    // Other tests run on the same cores: short work must not take an interval there.
    intervalMs: 2_000,
    faults: Object.keys(FAULTS).filter((kind) => !LONG.has(kind)),
    atOnce: 4,
    slackMs: 5_000,
    reportsPerSecond: 100,
    onLine: (line) => lines.push(line),
  });
  expect(result.transitions).toBeGreaterThan(2_000);
  expect(result.violations.length, [...lines, ...report(result, 3)].join("\n")).toBe(0);
});
