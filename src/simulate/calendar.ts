import { type AgentView, CallError, type ServiceClients } from "harborforge-agents-client";
import { pause } from "../../common/scheduling/timers.ts";
import { between, pick, type Random } from "./seeded-random.ts";
import { setAgentStatus } from "./service-calls.ts";

/** The time between two appointments of one agent, in milliseconds. A fleet of 36 has about one in a second. */
const SOONEST_MS = 15_000;
const LATEST_MS = 45_000;
/** The share of appointments with a certain agent, whatever its status is then. */
const FIXED_AGENT_SHARE = 0.25;
/** The number of agents that are tried for an appointment. */
const MAX_CANDIDATES = 30;
const SHORTEST_PAUSE_MS = 20;
/** The share of appointments that two schedulers claim at the same time. */
const RACE_SHARE = 0.1;

export interface CalendarOptions {
  readonly clients: ServiceClients;
  readonly random: Random;
  readonly speed: number;
  readonly agentIds: readonly string[];
  /** The newest known state of an agent. */
  agent(agentId: string): AgentView | undefined;
  onClaimed(): void;
  /** A claim was rejected: with the contract's reason, or the code if there is none. */
  onRefused(reason: string): void;
}

/**
 * Simulates HarborForge's calendar: at the time of an appointment it claims an agent with its known revision, so that
 * only one of two schedulers succeeds. Runs until the signal aborts.
 */
export async function runCalendar(options: CalendarOptions, signal: AbortSignal): Promise<void> {
  const { random, speed, agentIds } = options;
  while (!signal.aborted) {
    // Timers have a resolution of a millisecond, so a large fleet has several appointments at once.
    const untilNext = between(random, SOONEST_MS, LATEST_MS) / Math.max(1, agentIds.length) / speed;
    const appointments = Math.ceil(SHORTEST_PAUSE_MS / untilNext);
    await pause(untilNext * appointments, signal);
    if (signal.aborted) return;
    await Promise.all(Array.from({ length: appointments }, () => fill(options, signal)));
  }
}

async function fill(options: CalendarOptions, signal: AbortSignal): Promise<void> {
  const agent = candidate(options);
  if (agent === undefined) return;
  const claims = options.random() < RACE_SHARE ? 2 : 1;
  await Promise.all(Array.from({ length: claims }, () => claim(options, agent, signal)));
}

/** An idle agent; for an appointment with a certain agent also an exhausted or offline one. */
function candidate({ agentIds, agent: find, random }: CalendarOptions): AgentView | undefined {
  const fixed = random() < FIXED_AGENT_SHARE;
  for (let look = 0; look < MAX_CANDIDATES; look += 1) {
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
