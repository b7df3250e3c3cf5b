import type { AgentStatus } from "../../common/contract/enum-names.ts";
import type { Micros } from "../../common/contract/time.ts";
import type { Agent } from "./agent.ts";
import type { StatusChange } from "./status-machine.ts";
import type { WakeWrite } from "./wake.ts";
import { claimInstead, idle, unchanged } from "./wake-beats.ts";
import { stepOf, type WakeEvent } from "./wake-machine.ts";

// What changes of an agent that no beat makes mean for its wakes.

const NONE: readonly WakeWrite[] = [];

function step(agent: Agent, event: WakeEvent, now: Micros): readonly WakeWrite[] {
  const open = agent.wakes?.open ?? null;
  const write = open === null ? undefined : stepOf(open, event, now);
  return write === undefined ? NONE : [write];
}

/** The lease expired. An accepted wake is abandoned if the agent stays offline for one more lease. */
export function afterLeaseEnd(agent: Agent, now: Micros): readonly WakeWrite[] {
  const open = agent.wakes?.open ?? null;
  if (open?.state === "accepted") return [{ ...unchanged(open), abandon: "lease" }];
  return step(agent, "lease_end", now);
}

/** A service sets a status. */
export function afterServiceChange(agent: Agent, to: AgentStatus, now: Micros): readonly WakeWrite[] {
  if (to === agent.status) return NONE;
  return step(agent, SERVICE_EVENTS[to], now);
}

const SERVICE_EVENTS: Readonly<Record<AgentStatus, WakeEvent>> = {
  idle: "service_free",
  offline: "service_free",
  exhausted: "service_exhausted",
  on_call: "service_work",
  busy: "service_work",
};

/** A move ends the open wake. The claim of an offer goes; the status of an agent that works stays. */
export function afterMove(
  agent: Agent,
  now: Micros,
): { readonly status?: StatusChange; readonly wakes: readonly WakeWrite[] } {
  const wakes = step(agent, "move", now);
  return agent.wakes?.open?.state === "offered" ? { status: idle(), wakes } : { wakes };
}

/** A recovery of an agent that works for a wake leads to the claim, and not to `idle`. */
export function recoveryWithWake(agent: Agent, recovery: StatusChange): StatusChange {
  const open = agent.wakes?.open ?? null;
  return open === null ? recovery : claimInstead(open, recovery);
}
