import { randomInt } from "node:crypto";
import { expect, test } from "vitest";
import { FAULTS, type FaultName } from "./faults.ts";
import { runTorture } from "./run.ts";

/** Those that need more time than a short run has: connections have to be quiet for long before pings are sent. */
const LONG: readonly string[] = ["stall-at-ping"];

// The short form: the long one is `npm run test:client-faults`.
test("programs that use the client library survive stalls, broken connections and restarts", {
  timeout: 240_000,
}, async () => {
  const lines: string[] = [];
  const { problems, acknowledged } = await runTorture({
    seed: randomInt(1_000_000),
    forMs: 32_000,
    replicas: 2,
    agentsPerHost: 3,
    intervalMs: 2_000,
    everyMs: 300,
    longestStallMs: 3_000,
    faults: Object.keys(FAULTS).filter((name): name is FaultName => !LONG.includes(name)),
    recoverWithinMs: 60_000,
    onLine: (line) => lines.push(line),
  });
  // The seed is the first thing to know when it fails.
  expect({ problems, run: problems.length > 0 ? lines : [] }).toEqual({ problems: [], run: [] });
  expect(acknowledged).toBeGreaterThan(20);
});
