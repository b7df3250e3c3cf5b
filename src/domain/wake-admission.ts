import type { WakeReason } from "../../common/contract/enum-names.ts";
import { type Micros, toRfc3339 } from "../../common/contract/time.ts";
import type { Agent } from "./agent.ts";
import { Refusal } from "./errors.ts";
import type { Pause } from "./wake.ts";

/** What decides, beside the agent itself, whether it can be woken. */
export interface Admission {
  /** Whether the session that holds the agent, or held it last, takes wakes. */
  readonly takesWakes: boolean;
  /** Whether the replica of that session runs. */
  readonly isServed: boolean;
  readonly pause: Pause | null;
  /** The place of the first queued wake of the agent; null: none is queued. */
  readonly firstQueued: bigint | null;
}

/** Why an agent cannot be woken now. */
export interface Obstacle {
  readonly reason: WakeReason;
  refusal(): Refusal;
}

/** The time after which a wake may be tried again whose obstacle goes soon, in milliseconds. */
const RETRY_MS = 1_000;

/**
 * The first obstacle to a wake. Undefined: the agent can be woken, limits aside.
 *
 * @param place of the wake in the queue of the agent; undefined: it would be the last
 * @param now the database's clock
 */
export function obstacleTo(
  agent: Agent,
  { takesWakes, isServed, pause, firstQueued }: Admission,
  place: bigint | undefined,
  now: Micros,
): Obstacle | undefined {
  const { agentId, status } = agent;
  const open = agent.wakes?.open ?? null;
  const wakeId = open === null ? {} : { metadata: { wakeId: open.wakeId } };
  if (status === "busy") {
    return obstacle("busy", "AGENT_BUSY", `'${agentId}' is busy. Try again later, or queue the wake.`, wakeId);
  }
  if (status === "on_call") {
    return obstacle(
      "on_call",
      "AGENT_ON_CALL",
      `'${agentId}' is on a call. Try again later, or queue the wake.`,
      wakeId,
    );
  }
  if (status === "exhausted") {
    const recoveryAt = agent.exhaustion === null ? undefined : toRfc3339(agent.exhaustion.recoveryAt);
    const until = recoveryAt === undefined ? "" : ` until ${recoveryAt}`;
    return obstacle(
      "exhausted",
      "AGENT_EXHAUSTED",
      `'${agentId}' is exhausted${until}. Wait for its recovery, or queue the wake.`,
      recoveryAt === undefined ? {} : { metadata: { recoveryAt } },
    );
  }
  if (status === "offline") {
    return obstacle(
      "offline",
      "AGENT_OFFLINE",
      `'${agentId}' is offline. Its next heartbeat brings it back. Try again later, or queue the wake.`,
    );
  }
  if (open !== null) {
    return obstacle("busy", "AGENT_BUSY", `'${agentId}' has an open wake, '${open.wakeId}'. Queue the wake.`, wakeId);
  }
  if (agent.leaseExpiresAt === null || agent.leaseExpiresAt <= now) {
    const since = agent.suspectSince;
    return obstacle(
      since === null ? "offline" : "suspect",
      "AGENT_OFFLINE",
      `The lease of '${agentId}' is over. It is offline soon, or back. Try again, or queue the wake.`,
      { retryAfterMs: RETRY_MS, ...(since === null ? {} : { metadata: { suspectSince: toRfc3339(since) } }) },
    );
  }
  if (pause !== null) {
    const until = pause.until === null ? undefined : toRfc3339(pause.until);
    return obstacle(
      "paused",
      "AGENT_PAUSED",
      `Wakes of '${agentId}' are paused${until === undefined ? "" : ` until ${until}`}. Resume them, or queue the wake.`,
      until === undefined ? {} : { metadata: { until } },
    );
  }
  if (!agent.held || !takesWakes || !isServed) {
    const reconnects = takesWakes;
    return obstacle(
      "no_session",
      "WAKES_NOT_TAKEN",
      reconnects
        ? `The stream of '${agentId}' has ended. Try again when its claw has reconnected, or queue the wake.`
        : `No stream that takes wakes holds '${agentId}'. Open one with takes_wakes, or queue the wake.`,
      reconnects ? { retryAfterMs: RETRY_MS } : {},
    );
  }
  if (firstQueued !== null && (place === undefined || firstQueued < place)) {
    return obstacle("busy", "AGENT_BUSY", `Earlier wakes of '${agentId}' are queued. Queue the wake.`);
  }
  return undefined;
}

function obstacle(reason: WakeReason, ...refusal: ConstructorParameters<typeof Refusal>): Obstacle {
  return { reason, refusal: () => new Refusal(...refusal) };
}
