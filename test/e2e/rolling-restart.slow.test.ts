import { expect, test } from "vitest";
import { runChaos } from "../chaos/run-chaos.ts";

test("a rolling restart of three replicas under load puts no agent offline and loses no acknowledged report", async () => {
  const lines: string[] = [];
  const result = await runChaos({
    seed: 1,
    // It contains one roll over all three replicas.
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
  // Not for lack of reports: there are some at every moment of the roll.
  expect(result.reports).toBeGreaterThan(300);
}, 150_000);
