import { createServiceClients } from "harborforge-agents-client";
import { describe, expect, test } from "vitest";
import { AgentStatus, TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { openStage, type Running, says } from "../support/program.ts";
import { until } from "../support/until.ts";

/** Longer than a lease of three seconds, on a busy machine. */
const PATIENCE_MS = 40_000;
const AGENTS = ["agent-1", "agent-2", "agent-3"];

/**
 * A claw process: its agents report WORD once. It prints the responses, and claims its agents again on SIGUSR2.
 */
const CLAW = `
import { createHeartbeatClient } from "${new URL("../../packages/client/src/index.ts", import.meta.url)}";
const claw = createHeartbeatClient({
  address: process.env.ADDRESS,
  claw: "claw-1",
  worker: process.env.BEATS === "worker",
});
const agents = ${JSON.stringify(AGENTS)}.map((agentId) => claw.agent(agentId));
for (const agent of agents) {
  for (const event of ["superseded", "refused"]) agent.on(event, () => console.log(event, agent.agentId));
}
process.on("SIGUSR2", () => {
  for (const agent of agents) agent.claim();
});
await Promise.all(agents.map((agent) => agent[process.env.WORD]()));
console.log("reported");
`;

const told = ({ stdout }: Running) => AGENTS.filter((agentId) => stdout.includes(`superseded ${agentId}`));

interface Absence {
  readonly what: string;
  leave(claw: Running, proxy: FaultProxy): void;
  comeBack(claw: Running, proxy: FaultProxy): void;
}

const ABSENCES: readonly Absence[] = [
  { what: "frozen", leave: (claw) => claw.kill("SIGSTOP"), comeBack: (claw) => claw.kill("SIGCONT") },
  {
    what: "partitioned from the service",
    leave: (_, proxy) => proxy.swallow(),
    comeBack: (_, proxy) => proxy.mend(),
  },
  { what: "disconnected and refused", leave: (_, proxy) => proxy.cut(), comeBack: (_, proxy) => proxy.mend() },
];

describe.each(ABSENCES)("a claw process that was $what beyond its lease", ({ leave, comeBack }) => {
  test.each([
    { where: "same", beats: "main" },
    { where: "other", beats: "main" },
    { where: "other", beats: "worker" },
  ] as const)("leaves its agents to the process that took them at the $where replica, and notifies its program ($beats thread)", {
    timeout: 180_000,
  }, async ({ where, beats }) => {
    await using stage = await openStage();
    await using database = await createTestDatabase();
    const env = { DATABASE_URL: database.url, HARBORFORGE_HEARTBEAT_INTERVAL: "1s" };
    const [one, other] = await Promise.all([stage.serve({ env }), stage.serve({ env })]);
    await using proxy = await FaultProxy.open(() => [Number(new URL(one.grpc).port)]);
    using service = createServiceClients({ address: new URL(other.grpc).host });
    for (const agentId of AGENTS) {
      await service.users.createUser({ username: agentId, agentId, clawIdentifier: "claw-1" });
    }
    const start = (address: string, WORD: string): Running =>
      stage.run(process.execPath, ["--input-type=module", "--eval", CLAW], {
        env: { ADDRESS: address, WORD, BEATS: beats },
      });
    const untilAll = (status: AgentStatus) =>
      until(
        `all agents have the status ${status}`,
        async () => {
          const { agents } = await service.agents.batchGetAgents({ agentIds: AGENTS });
          return agents.every((agent) => agent.status === status);
        },
        PATIENCE_MS,
      );

    const former = start(proxy.address, "busy");
    await says(former, "reported");
    leave(former, proxy);
    await untilAll(AgentStatus.OFFLINE);
    const taker = start(new URL(where === "same" ? one.grpc : other.grpc).host, "onCall");
    await says(taker, "reported");
    comeBack(former, proxy);

    // With the defect that this test detects, the taker is notified instead.
    await until("one of them is told", () => told(former).length + told(taker).length > 0, PATIENCE_MS);
    await until("all is told", () => told(former).length + told(taker).length >= AGENTS.length, PATIENCE_MS);
    expect({ former: told(former), taker: told(taker) }).toEqual({ former: AGENTS, taker: [] });
    // The taker still beats for them: it renews every lease.
    const leases = async () => {
      const { agents } = await service.agents.batchGetAgents({ agentIds: AGENTS });
      return agents.map(({ leaseExpiresAt }) => leaseExpiresAt?.seconds ?? 0n);
    };
    const before = await leases();
    await until(
      "every lease is renewed",
      async () => (await leases()).every((lease, index) => lease > (before[index] ?? 0n)),
      PATIENCE_MS,
    );
    for (const agentId of AGENTS) {
      const { transitions } = await service.agents.listAgentTransitions({ agentId });
      expect(transitions.map(({ cause, toStatus }) => [cause, toStatus])).toEqual([
        [TransitionCause.CREATED, AgentStatus.IDLE],
        [TransitionCause.REPORT, AgentStatus.BUSY],
        [TransitionCause.LEASE_EXPIRED, AgentStatus.OFFLINE],
        [TransitionCause.REPORT, AgentStatus.ON_CALL],
      ]);
    }
    expect(told(taker)).toEqual([]);

    // New reports of its program apply.
    former.kill("SIGUSR2");
    await until("the taker is told", () => told(taker).length === AGENTS.length, PATIENCE_MS);
    expect(former.stderr + taker.stderr).toBe("");
  });
});
