import { createAgentCache, createServiceClients } from "harborforge-agents-client";
import { describe, expect, test } from "vitest";
import { openStage } from "../support/program.ts";
import { startService } from "../support/service.ts";
import { until } from "../support/until.ts";

const WITHIN_MS = 20_000;

/** Blocks its event loop for BLOCK_MS as soon as its agent is busy, and reports afterwards. */
const BLOCKED = `
import { createHeartbeatClient } from ${JSON.stringify(new URL("../../packages/client/src/index.ts", import.meta.url))};
const { ADDRESS, AGENT, BLOCK_MS, WORKER } = process.env;
const claw = createHeartbeatClient({ address: ADDRESS, claw: "claw-1", worker: JSON.parse(WORKER) });
claw.on("worker", ({ state }) => console.log(state));
const agent = claw.agent(AGENT);
await agent.busy();
const late = agent.onCall();
Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(BLOCK_MS));
console.log("unblocked");
await late;
await agent.idle();
await claw.close();
`;

describe.concurrent("while the event loop of the main thread is blocked for longer than a lease", () => {
  test.each([
    ["stay online with a worker that beats", "blocked-worker", true, [], "unblocked\n"],
    ["go offline without a worker", "blocked-main", false, ["LEASE_EXPIRED"], "unblocked\n"],
    [
      "go offline after the worker's time limit, and return with their reports",
      "blocked-limit",
      { mainThreadTimeoutMs: 1_000 },
      ["LEASE_EXPIRED"],
      "unblocked\nsuspended\nresumed\n",
    ],
  ])("agents %s", { timeout: 120_000 }, async (_, agentId, worker, ends, stdout) => {
    await using service = await startService({ pace: { shortestIntervalMs: 1_000, heartbeatsPerSecond: 10_000 } });
    await using stage = await openStage();
    const ADDRESS = service.addresses.grpc;
    using clients = createServiceClients({ address: ADDRESS });
    await clients.users.createUser({ username: agentId, agentId, clawIdentifier: "claw-1" });
    await using cache = createAgentCache({ address: ADDRESS });
    const causes: string[] = [];
    cache.subscribe((event) => {
      if (event.kind !== "changes") return;
      for (const { transition } of event.changes) {
        const { cause, to, from } = transition;
        causes.push(cause === "report" ? `${from} → ${to}` : cause.toUpperCase());
      }
    });
    await cache.ready;
    const env = { ADDRESS, AGENT: agentId, WORKER: JSON.stringify(worker), BLOCK_MS: "8000" };
    const program = stage.run(process.execPath, ["--input-type=module", "--eval", BLOCKED], { env });
    expect(await program.ended).toMatchObject({ code: 0, stderr: "", stdout });
    await until("the goodbye is seen", () => causes.at(-1) === "GOODBYE", WITHIN_MS);
    expect(causes.filter((cause) => cause === "LEASE_EXPIRED")).toEqual(ends);
    expect(causes.filter((cause) => cause.endsWith("→ idle"))).toHaveLength(1);
    expect(causes.filter((cause) => cause.startsWith("offline → "))).toHaveLength(ends.length);
  });
});
