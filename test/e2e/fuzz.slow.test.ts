import { rm } from "node:fs/promises";
import { expect, onTestFinished, test } from "vitest";
import { createFuzzCredentials } from "../fuzz/credentials.ts";
import { startFuzzedService } from "../fuzz/fuzzed-service.ts";
import { faultsIn, fuzzReport, secretsIn } from "../fuzz/report.ts";
import { runFuzz } from "../fuzz/run-fuzz.ts";
import { TroubledDatabase } from "../fuzz/troubled-database.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { temporaryFolder } from "../support/owned-process.ts";

test("hostile inputs get a proper status, and affect no other client", { timeout: 90_000 }, async () => {
  const seed = Date.now() % 1_000_000_007;
  process.stdout.write(`fuzz seed ${seed}: npm run fuzz -- --seed ${seed} makes the same inputs, and more\n`);
  await using database = await createTestDatabase();
  await using service = await startFuzzedService(database.url);
  const result = await runFuzz({ seed, inputs: 3_000, forMs: 8_000, listeners: service.listeners, pid: service.pid });
  expect(result.violations, fuzzReport(result).join("\n")).toEqual([]);
  expect(faultsIn(service.log)).toEqual([]);
  expect(result.sent).toBeGreaterThan(100);
});

test("rejects hostile credentials, and neither returns nor logs them", { timeout: 90_000 }, async () => {
  const seed = Date.now() % 1_000_000_007;
  process.stdout.write(`fuzz seed ${seed}: npm run fuzz -- --credentials --seed ${seed} makes such inputs, and more\n`);
  const folder = await temporaryFolder("fuzz");
  onTestFinished(() => rm(folder, { recursive: true }));
  await using database = await createTestDatabase();
  const credentials = await createFuzzCredentials(database.url, folder);
  await using service = await startFuzzedService(database.url, credentials.env);
  const { listeners, pid } = service;
  const result = await runFuzz({ seed, inputs: 3_000, forMs: 8_000, listeners, pid, credentials });
  expect(result.violations, fuzzReport(result).join("\n")).toEqual([]);
  expect([...faultsIn(service.log), ...secretsIn(service.log, credentials.secrets)]).toEqual([]);
  for (const kind of ["ok", "Unauthenticated", "PermissionDenied"]) {
    expect(result.answers.get(kind) ?? 0, fuzzReport(result).join("\n")).toBeGreaterThan(0);
  }
});

test("hostile inputs get a named error while the database stalls, refuses, breaks and runs full", {
  timeout: 120_000,
}, async () => {
  const seed = Date.now() % 1_000_000_007;
  process.stdout.write(`fuzz seed ${seed}: npm run fuzz -- --database --seed ${seed} makes such inputs, and more\n`);
  await using cluster = await createTestDatabase();
  await using database = await TroubledDatabase.open(cluster.url);
  await using service = await startFuzzedService(database.url);
  const { listeners, pid } = service;
  const result = await runFuzz({ seed, inputs: 20_000, forMs: 20_000, listeners, pid, database });
  expect(result.violations, fuzzReport(result).join("\n")).toEqual([]);
  expect(faultsIn(service.log)).toEqual([]);
  expect(result.answers.get("Unavailable") ?? 0, fuzzReport(result).join("\n")).toBeGreaterThan(0);
  expect(database.troubles.size).toBe(4);
});
