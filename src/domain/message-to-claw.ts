import type { AgentStatus, Unknown, WakeClaim, WakeReason, WakeState } from "../../common/contract/enum-names.ts";
import type { Micros } from "../../common/contract/time.ts";
import type { Exhaustion } from "./agent.ts";
import type { Refusal } from "./errors.ts";
import { type AgentScope, agentDenied } from "./principal.ts";
import type { WakeReplyResult } from "./wake.ts";

// Everything that the server sends to a claw on its heartbeat stream, besides the acknowledgement and the pace that every
// response carries. To add a kind of message, follow the checklist in CONTRIBUTING.md.

/** The result of one beat. A beat that was applied as sent needs none. */
export interface BeatResult {
  readonly kind: "result";
  readonly agentId: string;
  /** The server's view after the beat; null where it gives none (the agent does not exist, or is not the stream's). */
  readonly status: AgentStatus | Unknown | null;
  readonly exhaustion: Exhaustion | null;
  readonly revision: bigint | null;
  /** Why the server rejected the beat; null: it was applied. */
  readonly refusal: Refusal | null;
  /** The message that carried the beat; 0 in a unary heartbeat. */
  readonly sequence: bigint;
  /** The beat's index in its message, from 0. */
  readonly beatIndex: number;
  /** One for each reply of the beat to a wake. Absent: it had none, or the beat was rejected. */
  readonly wakeResults?: readonly WakeReplyResult[] | undefined;
}

/** A service, the time or another replica changed an agent of the stream. */
export interface AgentUpdate {
  readonly kind: "change";
  readonly agentId: string;
  readonly status: AgentStatus | Unknown;
  readonly exhaustion: Exhaustion | null;
  readonly revision: bigint;
}

/** The stream lost an agent: another session took it, or it was moved or deleted. */
export interface AgentLoss {
  readonly kind: "lost";
  readonly agentId: string;
  readonly refusal: Refusal;
}

/** The state of a wake of an agent of the stream. It is the whole state, so only the newest one counts. */
export interface WakeNotice {
  readonly kind: "wake";
  readonly agentId: string;
  readonly wakeId: string;
  readonly offerRevision: bigint;
  readonly state: WakeState;
  /** Why the offer or the work ended; null: there is no more to say. */
  readonly reason: WakeReason | null;
  readonly claim: WakeClaim;
  /** The time that remains to answer, in milliseconds; null unless the wake is offered. */
  readonly answerWithinMs: number | null;
  /** Null at the end of the wake. */
  readonly payload: Uint8Array | null;
  readonly isCancelRequested: boolean;
  readonly expiresAt: Micros;
}

/** The replica stops, or cannot serve the stream: the claw opens its stream anew within this time, in milliseconds. */
export interface DrainRequest {
  readonly kind: "draining";
  readonly reconnectWithinMs: number;
}

export type ClawMessage = BeatResult | AgentUpdate | AgentLoss | WakeNotice | DrainRequest;

/** One output of a session: the acknowledgement, and the messages that waited. */
export interface SessionOutput {
  /** All messages up to it are applied or rejected. Cumulative; 0 before the first. */
  readonly acknowledgedSequence: bigint;
  readonly messages: readonly ClawMessage[];
  /** In milliseconds; announced instead of the pace's interval where set: a new stream's second beat comes sooner. */
  readonly firstIntervalMs?: number | undefined;
}

/** A message as a caller with this scope may read it. A claw's credential learns nothing of agents of other claws. */
export function messageWithin(scope: AgentScope, message: ClawMessage): ClawMessage {
  switch (message.kind) {
    case "result":
      return resultWithin(scope, message);
    case "lost": {
      // The stream had the agent, so it may learn that the agent was deleted, but not where it lives now.
      const isMoved = scope.kind === "claw" && message.refusal.reason === "WRONG_CLAW";
      return isMoved ? { ...message, refusal: agentDenied(message.agentId) } : message;
    }
    case "change":
    case "wake":
    case "draining":
      return message;
  }
}

/** A result as a caller with this scope may read it: that an agent lives in another claw and that it is unknown look alike. */
export function resultWithin(scope: AgentScope, result: BeatResult): BeatResult {
  const reason = result.refusal?.reason;
  if (scope.kind !== "claw" || (reason !== "WRONG_CLAW" && reason !== "AGENT_NOT_FOUND")) return result;
  return { ...result, status: null, exhaustion: null, revision: null, refusal: agentDenied(result.agentId) };
}
