/**
 * Clients that change agents at random, on any replica that is up. Rejections and lost connections are part of
 * it.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "./random.ts";
import { call, WireError } from "./wire.ts";

export const AGENT_IDS = Array.from({ length: 40 }, (_, n) => `agent-${n}`);
export const CLAWS = ["claw-a", "claw-b", "claw-c"] as const;
const STATUSES = ["AGENT_STATUS_IDLE", "AGENT_STATUS_BUSY", "AGENT_STATUS_ON_CALL", "AGENT_STATUS_OFFLINE"] as const;
const REPORTS = ["AGENT_STATUS_IDLE", "AGENT_STATUS_BUSY", "AGENT_STATUS_ON_CALL"] as const;

export interface WriterOptions {
  readonly random: Random;
  readonly signal: AbortSignal;
  bases(): readonly string[];
  /** A user was created. */
  onUser(id: string): void;
  /** A call was answered: the agents changed, or had the requested state already. */
  onChange?(): void;
}

export async function write({ random, signal, bases, onUser, onChange }: WriterOptions): Promise<void> {
  while (!signal.aborted) {
    const there = bases();
    if (there.length === 0) {
      await sleep(20);
      continue;
    }
    try {
      const user = await changeSomething(random.pick(there), random);
      if (user !== undefined) onUser(user);
      onChange?.();
    } catch (error) {
      if (!(error instanceof WireError)) await sleep(30);
    }
    if (random.chance(0.3)) await sleep(random.between(0, 25));
  }
}

async function changeSomething(base: string, random: Random): Promise<string | undefined> {
  const agentId = random.pick(AGENT_IDS);
  const claw = random.pick(CLAWS);
  const dice = random.next();
  if (dice < 0.2) {
    const username = `user of ${agentId} ${random.next()}`;
    const { user } = await call<{ user: { id: string } }>(base, "UserService/CreateUser", {
      username,
      agentId,
      clawIdentifier: claw,
    });
    return user.id;
  }
  if (dice < 0.27) await call(base, "AgentService/DeleteAgent", { agentId });
  else if (dice < 0.4) await call(base, "AgentService/MoveAgent", { agentId, clawIdentifier: claw });
  else if (dice < 0.6) {
    await call(base, "AgentService/UpdateAgentStatus", { agentId, status: random.pick(STATUSES), hold: "0s" });
  } else {
    const beats = random.some(AGENT_IDS, 0.15).map((id) => ({ agentId: id, status: random.pick(REPORTS) }));
    await call(base, "AgentService/SendHeartbeat", { beats });
  }
  return undefined;
}
