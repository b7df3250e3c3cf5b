import type { TransitionCause, WorkingStatus } from "../../common/contract/enum-names.ts";
import { type Micros, toRfc3339 } from "../../common/contract/time.ts";
import type { Agent, User } from "../domain/agent.ts";
import type { DeadlineKind } from "../domain/deadline.ts";
import type { RequestKey } from "../domain/directories.ts";
import { CLEAR_EXHAUSTION, type ExhaustionChange, KEEP_EXHAUSTION } from "../domain/exhaustion.ts";
import type { HoldChange, StatusChange } from "../domain/status-machine.ts";
import type { WakeWrite } from "../domain/wake.ts";

/** The lease stays, ends, or is granted for some time from the commit. */
export type LeaseChange =
  | { readonly kind: "keep" }
  | { readonly kind: "end" }
  | { readonly kind: "grant"; readonly ms: number };

export const KEEP_LEASE: LeaseChange = { kind: "keep" };
export const END_LEASE: LeaseChange = { kind: "end" };

/** A judged change of an existing agent. Missing fields stay unchanged. */
export interface AgentUpdate {
  readonly kind: "update" | "delete";
  /**
   * The agent that the change was judged by. Its revision, and its epoch if `fenceEpoch`, must still match at the
   * commit.
   */
  readonly agent: Agent;
  readonly cause: TransitionCause;
  readonly status?: StatusChange;
  /** Without `status`: what the change does to the hold. */
  readonly hold?: HoldChange;
  readonly clawIdentifier?: string;
  readonly lease: LeaseChange;
  /** Whether a heartbeat made the change. */
  readonly heartbeat?: boolean;
  readonly held?: boolean;
  /** Gives a new epoch, so that the session that holds the agent now cannot change it any more. */
  readonly newEpoch?: boolean;
  readonly fenceEpoch?: boolean;
  /** Applies only if the lease has expired by the database's clock. */
  readonly leaseEnded?: boolean;
  /**
   * Applies only if this stored deadline of the agent has passed by the database's clock, and no outage of the agent's
   * replica extends it.
   */
  readonly deadline?: DeadlineKind;
  /** Applies only if the agent is not suspect at that moment. */
  readonly notSuspect?: boolean;
  readonly incidentId?: string;
  /** For a deletion: also deletes the agent's user. */
  readonly deleteUser?: boolean;
  /** Changes of the agent's wakes, in the same transaction. A deletion ends all of them by itself. */
  readonly wakes?: readonly WakeWrite[];
}

/** A write that is not a transition: it has no revision and no row in the log. */
export interface QuietUpdate {
  readonly kind: "quiet";
  readonly agent: Agent;
  readonly endHold?: boolean;
  /** The agent knows of the claim, so it does not lapse. The hold stays. */
  readonly claimKnown?: boolean;
  readonly lease: LeaseChange;
  readonly heartbeat?: boolean;
  readonly fenceEpoch?: boolean;
}

/** A new agent, for a new user or for an existing one. */
export interface AgentCreation {
  readonly kind: "create";
  readonly agentId: string;
  readonly clawIdentifier: string;
  readonly firstLeaseMs: number;
  readonly user:
    | { readonly id: bigint }
    | { readonly username: string; readonly email: string | null; readonly displayName: string };
}

export type AgentWrite = AgentUpdate | QuietUpdate | AgentCreation;

/** The result of a committed write. */
export interface Committed {
  /** The agent after the write; for a deletion, right before it. */
  readonly agent: Agent;
  /** Null if the write is not a transition. */
  readonly revision: bigint | null;
  /** The user that was created with the agent. */
  readonly user: User | undefined;
  /** Set on the first expired lease of a silent claw: the name of the claw. */
  readonly silentClaw: string | undefined;
}

const CLEAR_HOLD: HoldChange = { kind: "clear" };
const KEEP_HOLD: HoldChange = { kind: "keep" };

/** `Agent.lapsesTo` after a write has committed, which `commit_changes` does not return. */
export function lapsesToAfter(write: AgentWrite): WorkingStatus | null {
  switch (write.kind) {
    case "create":
    case "delete":
      return null;
    case "quiet":
      return write.endHold || write.claimKnown ? null : write.agent.lapsesTo;
    case "update": {
      const hold = write.status?.hold ?? write.hold ?? KEEP_HOLD;
      // A change of a queued wake changes no hold, and no claim that waits for its confirmation.
      if (write.cause === "wake" && hold.kind === "keep" && write.status === undefined) return write.agent.lapsesTo;
      return hold.kind === "set" ? (hold.lapsesTo ?? null) : null;
    }
  }
}

/**
 * The JSON form of a group's member for `commit_changes` (the SQL type `agent_change`).
 *
 * @param n the index of the member in its group
 * @param notAfter the write must not commit after this instant; undefined: no limit
 */
export function memberOf(
  n: number,
  write: AgentWrite,
  actor: string,
  request: RequestKey | undefined,
  notAfter?: Micros,
): object {
  const requested =
    request === undefined
      ? {}
      : { principal: request.principal, request_id: request.id, fingerprint: request.fingerprint };
  const until = notAfter === undefined ? {} : { not_after: toRfc3339(notAfter) };
  const common = { n, actor, ...requested, ...until };
  switch (write.kind) {
    case "create":
      return {
        ...common,
        kind: "create",
        quiet: false,
        cause: "created",
        agent_id: write.agentId,
        claw_identifier: write.clawIdentifier,
        ...exhaustionColumns(KEEP_EXHAUSTION),
        ...holdColumns(CLEAR_HOLD),
        ...leaseColumns({ kind: "grant", ms: write.firstLeaseMs }),
        heartbeat: false,
        ...("id" in write.user
          ? { user_id: text(write.user.id) }
          : { username: write.user.username, email: write.user.email, display_name: write.user.displayName }),
      };
    case "quiet":
      return {
        ...common,
        ...fence(write),
        kind: "update",
        quiet: true,
        status: storedStatus(write.agent),
        ...exhaustionColumns(KEEP_EXHAUSTION),
        ...holdColumns(write.endHold ? CLEAR_HOLD : KEEP_HOLD),
        ...(write.claimKnown ? { claim_known: true } : {}),
        ...leaseColumns(write.lease),
        heartbeat: write.heartbeat ?? false,
      };
    case "update":
    case "delete": {
      const change = write.status;
      return {
        ...common,
        ...fence(write),
        kind: write.kind,
        quiet: false,
        cause: write.cause,
        incident_id: write.incidentId,
        lease_ended: write.leaseEnded ?? false,
        ...(write.deadline === undefined ? {} : { deadline: write.deadline }),
        ...(write.notSuspect ? { not_suspect: true } : {}),
        not_before: change?.notBefore == null ? undefined : toRfc3339(change.notBefore),
        status: change?.status ?? storedStatus(write.agent),
        claw_identifier: write.clawIdentifier,
        ...exhaustionColumns(change?.exhaustion ?? KEEP_EXHAUSTION),
        ...(change?.forgetBackoff ? { backoff_steps: 0 } : {}),
        ...holdColumns(change?.hold ?? write.hold ?? KEEP_HOLD),
        ...leaseColumns(write.lease),
        heartbeat: write.heartbeat ?? false,
        held: write.held,
        new_epoch: write.newEpoch ?? false,
        delete_user: write.deleteUser ?? false,
        user_id: text(write.agent.userId),
      };
    }
  }
}

/** The status as the database has it. */
function storedStatus({ status, newerStatus }: Agent): string {
  return newerStatus ?? status;
}

function fence(write: { agent: Agent; fenceEpoch?: boolean }): object {
  return {
    id: text(write.agent.id),
    expect_revision: text(write.agent.revision),
    expect_epoch: write.fenceEpoch ? text(write.agent.epoch) : undefined,
  };
}

function exhaustionColumns(change: ExhaustionChange): object {
  if (change.kind !== "set") return { exhaustion: change.kind === CLEAR_EXHAUSTION.kind ? "clear" : "keep" };
  return {
    exhaustion: "set",
    exhaust_reason: change.reason,
    keep_exhausted_at: change.continues,
    backoff_steps: change.backoffSteps,
    ...("at" in change.recovery
      ? { recovery_at: toRfc3339(change.recovery.at) }
      : { recovery_after_ms: Math.round(change.recovery.afterMs) }),
  };
}

function holdColumns(change: HoldChange): object {
  if (change.kind !== "set") return { hold: change.kind };
  // A hold of 0 ms is no hold.
  if (change.forMs === 0) return { hold: "clear" };
  return {
    hold: "set",
    hold_ms: change.forMs === "until_recovery" ? undefined : Math.round(change.forMs),
    ...(change.lapsesTo === undefined ? {} : { lapses_to: change.lapsesTo }),
  };
}

function leaseColumns(change: LeaseChange): object {
  return change.kind === "grant" ? { lease: "grant", lease_ms: Math.round(change.ms) } : { lease: change.kind };
}

/** A JSON number would lose digits of a large bigint. PostgreSQL reads the string as well. */
function text(value: bigint): string {
  return value.toString();
}
