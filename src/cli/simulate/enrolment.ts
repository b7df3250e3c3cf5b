import { ensureAgent } from "../../client/agent-calls.ts";
import type { ServiceClients } from "../../client/service-clients.ts";

const CLAWS = ["demo-claw-a", "demo-claw-b", "demo-claw-c"];
/** Calls under way at the same time. */
const AT_ONCE = 8;

export interface ClawPlan {
  readonly name: string;
  readonly agentIds: readonly string[];
}

/** The three claws and their agents, by the same names at each run. */
export function planFleet(agentsPerClaw: number): ClawPlan[] {
  return CLAWS.map((name) => ({
    name,
    agentIds: Array.from({ length: agentsPerClaw }, (_, index) => `${name}-${String(index + 1).padStart(2, "0")}`),
  }));
}

/** Sees to it that all users and agents are there, adopting those of an earlier run. @throws CallError */
export async function enrol(clients: ServiceClients, plans: readonly ClawPlan[], signal: AbortSignal): Promise<void> {
  const waiting = plans.flatMap(({ name, agentIds }) => agentIds.map((agentId) => ({ agentId, clawIdentifier: name })));
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const { agentId } = next;
      await ensureAgent(clients, { ...next, username: agentId, displayName: `Demo agent ${agentId}` }, signal);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}
