import { expect, test } from "vitest";
import { startFuzzedService } from "../fuzz/fuzzed-service.ts";
import { faultsIn, fuzzReport } from "../fuzz/report.ts";
import { runFuzz } from "../fuzz/run-fuzz.ts";
import { createTestDatabase } from "../support/cluster.ts";

test("hostile inputs get a proper status, and harm nobody", { timeout: 90_000 }, async () => {
  const seed = Date.now() % 1_000_000_007;
  process.stdout.write(`fuzz seed ${seed}: npm run fuzz -- --seed ${seed} makes the same inputs, and more\n`);
  await using database = await createTestDatabase();
  await using service = await startFuzzedService(database.url);
  const result = await runFuzz({ seed, inputs: 3_000, forMs: 8_000, doors: service.doors, pid: service.pid });
  expect(result.violations, fuzzReport(result).join("\n")).toEqual([]);
  expect(faultsIn(service.log)).toEqual([]);
  expect(result.sent).toBeGreaterThan(100);
});
