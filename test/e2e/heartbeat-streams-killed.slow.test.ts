import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { HeartbeatClient } from "../support/heartbeat-client.ts";
import { spawn } from "../support/owned-process.ts";
import { GRPC_JS, useClients } from "../support/protocol-clients.ts";
import { useService } from "../support/service.ts";
import { createAgent, SessionWitness } from "../support/session-witness.ts";

const INTERVAL_MS = 600;

const service = useService({ pace: { shortestIntervalMs: INTERVAL_MS, heartbeatsPerSecond: 10_000 } });
const clients = useClients(GRPC_JS, service);
const witness = new SessionWitness(service);

describe.each([
  ["grpc-js", "grpc"],
  ["grpc", "http"],
  ["connect", "http"],
] as const)("a killed claw process with a %s client", (kind, listener) => {
  async function startClaw(agentId: string): Promise<ChildProcess> {
    const program = fileURLToPath(new URL("../support/heartbeat-client-process.ts", import.meta.url));
    const child = spawn(process.execPath, [program, kind, service().addresses[listener], agentId], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    await Promise.race([
      once(child.stdout, "data"),
      once(child, "exit").then(([code]) => Promise.reject(new Error(`the claw process ended with ${code}`))),
    ]);
    return child;
  }

  async function kill(child: ChildProcess): Promise<void> {
    child.kill("SIGKILL");
    await once(child, "exit");
  }

  test("sends no goodbye: its agent keeps its status during the lease, for any process that returns", async () => {
    const agentId = await createAgent(clients, "killed");
    const child = await startClaw(agentId);
    expect(await witness.holdOf(agentId)).toMatchObject({ held: true });
    await kill(child);
    await witness.letGo(agentId);
    await using next = new HeartbeatClient(clients.agents);
    expect(await next.say({ agentId })).toMatchObject([{ status: AgentStatus.BUSY }]);
    expect(await witness.storyOf(agentId)).toEqual(["report: busy"]);
  });

  test("leaves its agent online until the end of the lease, which is not early", async () => {
    const agentId = await createAgent(clients, "killed for good");
    await kill(await startClaw(agentId));
    await witness.letGo(agentId);
    // A renewal reads the clock twice, some microseconds apart.
    expect(await witness.endOf(agentId, 3 * INTERVAL_MS)).toBeGreaterThan(-1);
    expect(await witness.storyOf(agentId)).toEqual(["report: busy", "lease_expired: offline"]);
  });
});
