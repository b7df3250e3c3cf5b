import { expect, test } from "vitest";
import { runChaos } from "../chaos/run-chaos.ts";

test("three replicas under load roll to the next release and back: no agent is offline, no acknowledged report is lost", async () => {
  const lines: string[] = [];
  const result = await runChaos({
    seed: 1,
    // Two rolls over all three replicas: to the next release, and back.
    forMs: 20_000,
    leastFaults: 2,
    agents: 200,
    claws: 10,
    intervalMs: 1_500,
    faults: ["roll"],
    atOnce: 1,
    slackMs: 10_000,
    reportsPerSecond: 100,
    mixed: true,
    onLine: (line) => lines.push(line),
  });
  expect(result.sentences, lines.join("\n")).toEqual([]);
  expect(result.faults.get("roll")).toBeGreaterThanOrEqual(2);
  expect(result.reports).toBeGreaterThan(300);
  expect(result.transitionsOfNext).toBeGreaterThan(0);
  // A replica of the current release told its watcher of them.
  expect(result.unknownCauses).toBeGreaterThan(0);
}, 240_000);
