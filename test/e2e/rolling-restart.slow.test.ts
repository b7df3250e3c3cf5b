import { expect, test } from "vitest";
import { runChaos } from "../chaos/run-chaos.ts";

test("three replicas are restarted one after the other under load: nobody is offline, no acknowledged report is lost", async () => {
  const lines: string[] = [];
  const result = await runChaos({
    seed: 1,
    // One roll over all three begins in it.
    forMs: 100,
    agents: 300,
    claws: 10,
    intervalMs: 800,
    faults: ["roll"],
    atOnce: 1,
    slackMs: 10_000,
    reportsPerSecond: 200,
    onLine: (line) => lines.push(line),
  });
  expect(result.sentences, lines.join("\n")).toEqual([]);
  expect(result.faults).toEqual(new Map([["roll", 1]]));
  // Not for want of reports: there are some at every moment of the roll.
  expect(result.reports).toBeGreaterThan(300);
}, 150_000);
