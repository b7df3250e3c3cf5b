import type { Agent } from "../domain/agent.ts";
import { invalidField, Refusal } from "../domain/errors.ts";

export function agentNotFound(agentId: string): Refusal {
  return new Refusal(
    "AGENT_NOT_FOUND",
    `The agent ${JSON.stringify(agentId)} does not exist. Create it first, or check the agent_id.`,
    {
      metadata: { agentId },
    },
  );
}

/**
 * Does not name the agent's claw: the caller may not be allowed to read it.
 *
 * @param claw the claw that the heartbeat names
 */
export function wrongClaw(agent: Pick<Agent, "agentId">, claw: string): Refusal {
  return new Refusal(
    "WRONG_CLAW",
    `The agent ${JSON.stringify(agent.agentId)} does not live in the claw ${JSON.stringify(claw)}. Send its heartbeats from its own claw, or move it.`,
    {
      metadata: { agentId: agent.agentId },
    },
  );
}

export function sessionSuperseded(agentId: string): Refusal {
  return new Refusal(
    "SESSION_SUPERSEDED",
    `Another stream holds the agent ${JSON.stringify(agentId)}, or another process has held it since this process last did. Stop sending its heartbeats here, or send one with session_start ANEW to take it back.`,
    { metadata: { agentId } },
  );
}

/** A stream that does not name its process has no earlier session to resume: each such stream is a process of its own. */
export function nothingToResume(beatIndex: number): Refusal {
  return wrongSessionStart(beatIndex, "must not be RESUME on a stream whose first message has no instance_id");
}

/** A unary heartbeat starts no session, so it has no session_start. */
export function startsNoSession(beatIndex: number): Refusal {
  return wrongSessionStart(beatIndex, "must not be set in SendHeartbeat, which starts no session");
}

function wrongSessionStart(beatIndex: number, description: string): Refusal {
  const field = `beats[${beatIndex}].session_start`;
  return new Refusal("INVALID_FIELD", `${field}: ${description}`, { violations: [{ field, description }] });
}

export function reportOutdated(agent: Agent): Refusal {
  return new Refusal(
    "REPORT_OUTDATED",
    "A service changed the agent meanwhile. Adopt the status in this result, or report again with its revision as known_revision.",
    { metadata: { agentId: agent.agentId, revision: agent.revision.toString() } },
  );
}

export function tooManyAgents(limit: number): Refusal {
  return new Refusal(
    "LIMIT_EXCEEDED",
    `One stream carries at most ${limit} agents. Open another stream for the rest.`,
    {
      metadata: { limit: limit.toString() },
      retryAfterMs: 60_000,
    },
  );
}

/** A unary heartbeat belongs to no process that could run a wake: it only tells of its end. */
export function finishesOnly(beatIndex: number, replyIndex: number): Refusal {
  return invalidField(
    `beats[${beatIndex}].wake_replies[${replyIndex}].type`,
    "must be FINISHED in SendHeartbeat: send the other replies on a stream with takes_wakes",
  );
}
