import { describe, expect, test } from "vitest";
import { runCli } from "../support/cli.ts";
import { unique, useService } from "../support/service.ts";

const INTERVAL_MS = 500;
const service = useService({ pace: { shortestIntervalMs: INTERVAL_MS, heartbeatsPerSecond: 10_000 } });
const env = () => ({ HARBORFORGE_ADDRESS: service().addresses.grpc });

async function said(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await runCli(args, env());
  expect({ code, stderr }, args.join(" ")).toEqual({ code: 0, stderr: "" });
  return stdout;
}

function documents(text: string): Record<string, unknown>[] {
  return text.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line)]));
}

describe("simulate", () => {
  test("runs a few hundred agents with faults, and its summary equals the service's log", async () => {
    const names = unique("sim");
    const args = ["--agents", "300", "--claws", "6", "--names", names, "--rate-limit", "0.3", "--speed", "20"];
    const text = await said("simulate", ...args, "--duration", "8s", "--empty-accounts", "2", "-o", "json");
    const summary = JSON.parse(text);
    expect(summary).toMatchObject({ agents: 300, claws: 6, leasesEndedOfBeatingAgents: 0 });
    expect(summary.clawsKilled).toBeGreaterThan(0);
    expect(summary.leasesEnded).toBeGreaterThan(0);
    expect(summary.claimed).toBeGreaterThan(0);

    const after = ["--oldest-first", "--after", summary.afterRevision, "--limit", "all", "-o", "jsonl"];
    const log = documents(await said("agents", "transitions", ...after)).filter(
      ({ agentId, revision }) =>
        String(agentId).startsWith(names) && BigInt(String(revision)) <= BigInt(summary.revision),
    );
    const causes: Record<string, number> = {};
    for (const { cause } of log) {
      const word = String(cause).replace("TRANSITION_CAUSE_", "").toLowerCase();
      causes[word] = (causes[word] ?? 0) + 1;
    }
    expect(summary.causes).toEqual(causes);
    expect(summary.transitions).toBe(log.length);

    const statuses: number[] = Object.values(Object(summary.statuses));
    expect(statuses.reduce((sum, one) => sum + one, 0)).toBe(300);
  }, 90_000);
});
