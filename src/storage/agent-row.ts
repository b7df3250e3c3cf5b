import {
  AGENT_STATUSES,
  type AgentStatus,
  EXHAUST_REASONS,
  type ExhaustReason,
  TRANSITION_CAUSES,
  type TransitionCause,
  type Unknown,
  type WorkingStatus,
} from "../../common/contract/enum-names.ts";
import type { Micros } from "../../common/contract/time.ts";
import type { Agent, Exhaustion, ExhaustionBackoff, Transition, User } from "../domain/agent.ts";
import type { WatchedAgent } from "../domain/filter.ts";
import { namedWake, type OpenWakeJson, type PauseJson, type UndoneClaimJson, wakesFromRow } from "./wake-row.ts";

/** A row of the view `agent_states`. */
export interface AgentRow extends ExhaustionColumns {
  readonly id: bigint;
  readonly user_id: bigint;
  readonly agent_id: string;
  readonly claw_identifier: string;
  readonly status: string;
  readonly created_at: Micros;
  readonly status_changed_at: Micros;
  readonly revision: bigint;
  readonly backoff_steps: number;
  readonly backoff_at: Micros | null;
  readonly hold_revision: bigint | null;
  readonly hold_until: Micros | null;
  readonly epoch: bigint;
  readonly held: boolean;
  readonly last_heartbeat: Micros | null;
  readonly lease_expires_at: Micros | null;
  readonly replica_id: number | null;
  readonly suspect_since: Micros | null;
  /** Its wakes and pause: queries select those that they need. */
  readonly open_wake?: OpenWakeJson | null;
  readonly queued_wakes?: number | null;
  readonly undone_claim?: UndoneClaimJson | null;
  readonly pause?: PauseJson | null;
  /** Only reads for a change have it. */
  readonly lapses_to?: string | null;
}

interface ExhaustionColumns {
  readonly exhausted_at: Micros | null;
  readonly recovery_at: Micros | null;
  readonly exhaust_reason: string | null;
}

/** The columns of an agent that watchers see. */
export type WatchedAgentRow = ExhaustionColumns &
  Pick<
    AgentRow,
    "id" | "user_id" | "agent_id" | "claw_identifier" | "status" | "created_at" | "status_changed_at" | "revision"
  > & { readonly open_wake_id: string | null; readonly open_wake_state: string | null };

/** A row of the log of transitions. */
export interface TransitionRow extends ExhaustionColumns {
  readonly revision: bigint;
  readonly agent: bigint;
  readonly agent_id: string;
  readonly user_id: bigint;
  readonly from_status: string | null;
  readonly to_status: string | null;
  readonly from_claw_identifier: string | null;
  readonly to_claw_identifier: string | null;
  readonly cause: string;
  readonly actor: string;
  readonly occurred_at: Micros;
  readonly request_id: string | null;
  readonly incident_id: string | null;
  readonly previous_revision: bigint | null;
  readonly agent_created_at: Micros;
  readonly status_changed_at: Micros;
  readonly wake_id: string | null;
  readonly wake_state: string | null;
  readonly open_wake_id: string | null;
  readonly open_wake_state: string | null;
}

/** A row of the view `user_states`. */
export interface UserRow {
  readonly id: bigint;
  readonly username: string;
  readonly email: string | null;
  readonly display_name: string;
  readonly created_at: Micros;
  readonly agent_id: string | null;
}

export function watchedAgentFromRow(row: WatchedAgentRow): WatchedAgent {
  const openWake = namedWake(row.open_wake_id, row.open_wake_state);
  return {
    id: row.id,
    userId: row.user_id,
    agentId: row.agent_id,
    clawIdentifier: row.claw_identifier,
    status: statusOf(row.status),
    exhaustion: exhaustionOf(row.exhaust_reason, row.exhausted_at, row.recovery_at),
    createdAt: row.created_at,
    statusChangedAt: row.status_changed_at,
    revision: row.revision,
    ...(openWake === null ? {} : { openWake }),
  };
}

/** Nearly all agents share this object. */
const NO_BACKOFF: ExhaustionBackoff = Object.freeze({ steps: 0, lastAt: null });

/** Written out rather than spread, which would give each agent of a large fleet a second object for its members. */
export function agentFromRow(row: AgentRow): Agent {
  const status = statusOf(row.status);
  return {
    id: row.id,
    userId: row.user_id,
    agentId: row.agent_id,
    clawIdentifier: row.claw_identifier,
    status,
    ...(status === "unknown" ? { newerStatus: row.status } : {}),
    exhaustion: exhaustionOf(row.exhaust_reason, row.exhausted_at, row.recovery_at),
    createdAt: row.created_at,
    statusChangedAt: row.status_changed_at,
    revision: row.revision,
    backoff:
      row.backoff_steps === 0 && row.backoff_at === null
        ? NO_BACKOFF
        : { steps: row.backoff_steps, lastAt: row.backoff_at },
    hold:
      row.hold_revision === null || row.hold_until === null
        ? null
        : { revision: row.hold_revision, until: row.hold_until },
    lapsesTo: workingStatusOf(row.lapses_to),
    epoch: row.epoch,
    held: row.held,
    lastHeartbeat: row.last_heartbeat,
    leaseExpiresAt: row.lease_expires_at,
    replicaId: row.replica_id,
    suspectSince: row.suspect_since,
    wakes: wakesFromRow(row),
  };
}

export function transitionFromRow(row: TransitionRow): Transition {
  return {
    revision: row.revision,
    id: row.agent,
    agentId: row.agent_id,
    userId: row.user_id,
    fromStatus: row.from_status === null ? null : statusOf(row.from_status),
    toStatus: row.to_status === null ? null : statusOf(row.to_status),
    fromClaw: row.from_claw_identifier,
    toClaw: row.to_claw_identifier,
    cause: causeOf(row.cause),
    actor: row.actor,
    occurredAt: row.occurred_at,
    requestId: row.request_id,
    incidentId: row.incident_id,
    previousRevision: row.previous_revision,
    exhaustion: exhaustionOf(row.exhaust_reason, row.exhausted_at, row.recovery_at),
    createdAt: row.agent_created_at,
    statusChangedAt: row.status_changed_at,
    wake: namedWake(row.wake_id, row.wake_state),
    openWake: namedWake(row.open_wake_id, row.open_wake_state),
  };
}

export function userFromRow(row: UserRow): User {
  return {
    id: row.id,
    username: row.username,
    email: row.email,
    displayName: row.display_name,
    agentId: row.agent_id,
    createdAt: row.created_at,
  };
}

// The database checks these columns. A value that is not in these tables comes from a newer program: it is `unknown`.
const STATUSES: ReadonlyMap<string, AgentStatus> = new Map(AGENT_STATUSES.map((status) => [status, status]));
const WORKING_STATUSES: ReadonlyMap<string, WorkingStatus> = new Map(
  (["idle", "on_call", "busy"] as const).map((status) => [status, status]),
);
const REASONS: ReadonlyMap<string, ExhaustReason> = new Map(EXHAUST_REASONS.map((reason) => [reason, reason]));
const CAUSES: ReadonlyMap<string, TransitionCause> = new Map(TRANSITION_CAUSES.map((cause) => [cause, cause]));

export function statusOf(text: string): AgentStatus | Unknown {
  return STATUSES.get(text) ?? "unknown";
}

/**
 * Undefined, in a read without this column, is null. A status of a newer program is, too: this program does not let such a
 * claim lapse, a newer one does.
 */
export function workingStatusOf(text: string | null | undefined): WorkingStatus | null {
  return WORKING_STATUSES.get(text ?? "") ?? null;
}

export function causeOf(text: string): TransitionCause | Unknown {
  return CAUSES.get(text) ?? "unknown";
}

/** Null if there is no exhaustion. The database stores all three values or none. */
export function exhaustionOf(
  reason: string | null,
  exhaustedAt: Micros | null,
  recoveryAt: Micros | null,
): Exhaustion | null {
  if (reason === null || exhaustedAt === null || recoveryAt === null) return null;
  return { reason: REASONS.get(reason) ?? "unknown", exhaustedAt, recoveryAt };
}
