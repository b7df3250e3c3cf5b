import { type AgentView, CallError, type ServiceClients } from "harborforge-agents-client";
import { setAgentStatus } from "../cli/calls/agent-calls.ts";
import { pause } from "../scheduling/timers.ts";
import { between, pick, type Random } from "./random.ts";

/** Between two slots of one agent; of a fleet of 36 about every second has one somewhere. */
const SOONEST_MS = 15_000;
const LATEST_MS = 45_000;
/** A slot that was made for a certain agent, whatever it is when its time comes. */
const FIXED_SLOT_SHARE = 0.25;
/** So many agents are looked at for a slot. */
const MOST_LOOKS = 30;
const SHORTEST_PAUSE_MS = 20;
/** Slots that two schedulers go for at the same time. */
const RACE_SHARE = 0.1;

export interface CalendarOptions {
  readonly clients: ServiceClients;
  readonly random: Random;
  readonly speed: number;
  readonly agentIds: readonly string[];
  /** An agent as far as it is known now. */
  agent(agentId: string): AgentView | undefined;
  onClaimed(): void;
  /** A claim was refused; the reason as the contract names it, or the code where there is none. */
  onRefused(reason: string): void;
}

/**
 * Does what HarborForge's calendar would: when a slot's time comes it claims an agent, by the revision it knows, so that
 * of two schedulers only one wins. Goes on until the signal aborts.
 */
export async function runCalendar(options: CalendarOptions, signal: AbortSignal): Promise<void> {
  const { random, speed, agentIds } = options;
  while (!signal.aborted) {
    // Timers are not finer than a millisecond: of a large fleet several slots come at once.
    const untilNext = between(random, SOONEST_MS, LATEST_MS) / Math.max(1, agentIds.length) / speed;
    const slots = Math.ceil(SHORTEST_PAUSE_MS / untilNext);
    await pause(untilNext * slots, signal);
    if (signal.aborted) return;
    await Promise.all(Array.from({ length: slots }, () => fill(options, signal)));
  }
}

async function fill(options: CalendarOptions, signal: AbortSignal): Promise<void> {
  const agent = candidate(options);
  if (agent === undefined) return;
  const claims = options.random() < RACE_SHARE ? 2 : 1;
  await Promise.all(Array.from({ length: claims }, () => claim(options, agent, signal)));
}

/** Who works or is on a call is left alone; who is exhausted or offline is tried where the slot is for that agent. */
function candidate({ agentIds, agent: find, random }: CalendarOptions): AgentView | undefined {
  const fixed = random() < FIXED_SLOT_SHARE;
  for (let look = 0; look < MOST_LOOKS; look += 1) {
    const agent = find(pick(random, agentIds) ?? "");
    const { status } = agent ?? {};
    if (status === "idle" || (fixed && (status === "exhausted" || status === "offline"))) return agent;
  }
  return undefined;
}

async function claim(options: CalendarOptions, agent: AgentView, signal: AbortSignal): Promise<void> {
  const { agentId, revision } = agent;
  try {
    await setAgentStatus(options.clients, { agentId, status: "on_call", expectedRevision: revision }, signal);
    options.onClaimed();
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    if (!signal.aborted) options.onRefused(error.reason ?? error.code);
  }
}
