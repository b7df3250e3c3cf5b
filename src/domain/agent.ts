import type { Micros } from "../contract/time.ts";
import type { AgentStatus, ExhaustReason, TransitionCause } from "../contract/words.ts";

/** Why an agent cannot work, since when, and until when: all three or none. */
export interface Exhaustion {
  readonly reason: ExhaustReason;
  readonly exhaustedAt: Micros;
  readonly recoveryAt: Micros;
}

/** How often in a row the server had to choose how long an exhaustion lasts; when one last began, changed or ended. */
export interface Backoff {
  readonly steps: number;
  readonly lastAt: Micros | null;
}

/** What a service set at `revision` stands until `until` against reports that do not know of it. */
export interface Hold {
  readonly revision: bigint;
  readonly until: Micros;
}

/** The part of an agent that the status machine judges. */
export interface AgentCondition {
  readonly status: AgentStatus;
  readonly exhaustion: Exhaustion | null;
  readonly backoff: Backoff;
  readonly hold: Hold | null;
}

/** An agent as the database knows it. */
export interface Agent extends AgentCondition {
  /** The row's own number: an `agentId` that was deleted and made again is another agent. */
  readonly id: bigint;
  readonly userId: bigint;
  readonly agentId: string;
  readonly clawIdentifier: string;
  readonly createdAt: Micros;
  readonly statusChangedAt: Micros;
  /** Its last transition. */
  readonly revision: bigint;
  /** The fencing token in force: of the session that holds the agent, or that held it last. */
  readonly epoch: bigint;
  /** Whether a session holds the agent. */
  readonly held: boolean;
  readonly lastHeartbeat: Micros | null;
  /** Null while offline: there is no lease then. */
  readonly leaseExpiresAt: Micros | null;
  /** The replica that watches its lease. */
  readonly replicaId: number | null;
  /** Its lease has ended, and the expiry brake holds it back since then. */
  readonly suspectSince: Micros | null;
}

/** One change of an agent, as the log of transitions keeps it: the whole agent after, what filters ask for before. */
export interface Transition {
  readonly revision: bigint;
  readonly id: bigint;
  readonly agentId: string;
  readonly userId: bigint;
  /** Null when the agent was created. */
  readonly fromStatus: AgentStatus | null;
  /** Null when the agent was deleted. */
  readonly toStatus: AgentStatus | null;
  readonly fromClaw: string | null;
  readonly toClaw: string | null;
  readonly cause: TransitionCause;
  readonly actor: string;
  readonly occurredAt: Micros;
  readonly requestId: string | null;
  readonly incidentId: string | null;
  /** The agent's revision before; null when it was created. */
  readonly previousRevision: bigint | null;
  /** After the transition; right before it, for a deletion. */
  readonly exhaustion: Exhaustion | null;
  readonly createdAt: Micros;
  readonly statusChangedAt: Micros;
}

export interface User {
  readonly id: bigint;
  readonly username: string;
  readonly email: string | null;
  readonly displayName: string;
  readonly agentId: string | null;
  readonly createdAt: Micros;
}
