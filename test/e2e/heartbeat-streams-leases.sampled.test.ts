import { describe, expect, test } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { HeartbeatClient, STREAM_ENDS } from "../support/heartbeat-client.ts";
import { TESTED_PROTOCOLS, useClients } from "../support/protocol-clients.ts";
import { useService } from "../support/service.ts";
import { createAgent, SessionWitness } from "../support/session-witness.ts";

const INTERVAL_MS = 400;

const service = useService({ pace: { shortestIntervalMs: INTERVAL_MS, heartbeatsPerSecond: 10_000 } });
const witness = new SessionWitness(service);

describe.each(TESTED_PROTOCOLS.filter(({ bidi }) => bidi))("a heartbeat stream by $name", (protocol) => {
  const clients = useClients(protocol, service);

  test("leaves its agent online until the end of the lease, however it ends, and not less", async () => {
    const agentIds: string[] = [];
    for (const [name, finish] of Object.entries(STREAM_ENDS)) {
      const agentId = await createAgent(clients, name);
      await using client = new HeartbeatClient(clients.agents);
      await client.say({ agentId, status: AgentStatus.BUSY });
      await finish(client);
      agentIds.push(agentId);
    }
    for (const agentId of agentIds) {
      expect(await witness.endOf(agentId, 3 * INTERVAL_MS)).toBeGreaterThanOrEqual(0);
      expect(await witness.storyOf(agentId)).toEqual(["report: busy", "lease_expired: offline"]);
    }
  });
});
