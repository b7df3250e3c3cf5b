import type {
  AgentStatus,
  ExhaustReason,
  TransitionCause,
  Unknown,
  WakeState,
  WorkingStatus,
} from "../../common/contract/enum-names.ts";
import type { Micros } from "../../common/contract/time.ts";
import type { AgentWakes } from "./wake.ts";

/** Why an agent cannot work, since when, and until when. */
export interface Exhaustion {
  readonly reason: ExhaustReason | Unknown;
  readonly exhaustedAt: Micros;
  readonly recoveryAt: Micros;
}

/**
 * The state of the server's own backoff. It chooses the length of an exhaustion when the provider names none. `lastAt`:
 * when an exhaustion last began, changed or ended.
 */
export interface ExhaustionBackoff {
  readonly steps: number;
  readonly lastAt: Micros | null;
}

/**
 * A service's change at `revision` takes precedence until `until` over reports of an agent that does not know of it.
 */
export interface Hold {
  readonly revision: bigint;
  readonly until: Micros;
}

/** The fields of an agent that the status machine judges by. */
export interface AgentCondition {
  readonly status: AgentStatus | Unknown;
  readonly exhaustion: Exhaustion | null;
  readonly backoff: ExhaustionBackoff;
  readonly hold: Hold | null;
  /**
   * The status that the agent returns to when the hold of a service's claim (ON_CALL or BUSY) ends unconfirmed. Null: there
   * is no such claim, or the agent has confirmed it. Known only to changes: other reads of an agent have null.
   */
  readonly lapsesTo: WorkingStatus | null;
}

/** An agent as the database stores it. */
export interface Agent extends AgentCondition {
  /** The number of the row. An agent that was deleted and created again under the same `agentId` has another number. */
  readonly id: bigint;
  readonly userId: bigint;
  readonly agentId: string;
  readonly clawIdentifier: string;
  readonly createdAt: Micros;
  readonly statusChangedAt: Micros;
  /** Only if `status` is `unknown`: what a newer version stored. Writes that keep the status store it again. */
  readonly newerStatus?: string;
  /** The revision of its last transition. */
  readonly revision: bigint;
  /** The current fencing token: of the session that holds the agent, or held it last. */
  readonly epoch: bigint;
  /** Whether a session holds the agent at this moment. */
  readonly held: boolean;
  readonly lastHeartbeat: Micros | null;
  /** Null while the agent is offline. */
  readonly leaseExpiresAt: Micros | null;
  /** The replica that watches its lease; null while offline. */
  readonly replicaId: number | null;
  /** Its wakes and pauses; null: nearly all agents have none. */
  readonly wakes: AgentWakes | null;
  /** When its lease expired, while the brake keeps it from going offline. Null: not suspect. */
  readonly suspectSince: Micros | null;
}

/**
 * One change of an agent, as the log stores it: the whole agent after the change, and the fields that filters need from
 * before.
 */
export interface Transition {
  readonly revision: bigint;
  readonly id: bigint;
  readonly agentId: string;
  readonly userId: bigint;
  /** Null when the agent was created. */
  readonly fromStatus: AgentStatus | Unknown | null;
  /** Null when the agent was deleted. */
  readonly toStatus: AgentStatus | Unknown | null;
  readonly fromClaw: string | null;
  readonly toClaw: string | null;
  readonly cause: TransitionCause | Unknown;
  readonly actor: string;
  readonly occurredAt: Micros;
  readonly requestId: string | null;
  readonly incidentId: string | null;
  /** The agent's previous revision; null when it was created. */
  readonly previousRevision: bigint | null;
  /** After the transition; for a deletion, right before it. */
  readonly exhaustion: Exhaustion | null;
  readonly createdAt: Micros;
  readonly statusChangedAt: Micros;
  /** The wake that changed in the transition; null: none did. */
  readonly wake: NamedWake | null;
  /** The agent's open wake after the transition. */
  readonly openWake: NamedWake | null;
}

/** A wake by its name, with its state at some moment. */
export interface NamedWake {
  readonly wakeId: string;
  readonly state: WakeState | Unknown;
}

export interface User {
  readonly id: bigint;
  readonly username: string;
  readonly email: string | null;
  readonly displayName: string;
  readonly agentId: string | null;
  readonly createdAt: Micros;
}
