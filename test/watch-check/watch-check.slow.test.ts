import { randomInt } from "node:crypto";
import { expect, test } from "vitest";
import { run } from "./run.ts";

// The short form: the long one, of many seeds, is `npm run test:watch`.
test.each([
  ["watchers receive the transitions of the log once and in order through faults of replicas and connections", 0],
  ["watchers get an error for a lost position when an older state of the database is restored", 2],
])(
  "%s",
  async (_, restores) => {
    const lines: string[] = [];
    const { problems, transitions } = await run({
      seed: randomInt(1_000_000),
      replicas: 2,
      watchers: 20,
      writers: 3,
      disturbedMs: 5_000,
      killReplicas: true,
      restartPostgres: false,
      restores,
      say: (line) => lines.push(line),
    });
    // The seed is the most important fact of a failure.
    expect({ problems, run: problems.length > 0 ? lines : [] }).toEqual({ problems: [], run: [] });
    expect(transitions).toBeGreaterThan(20);
  },
  240_000,
);
