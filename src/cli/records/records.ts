import { type JsonValue, toJson } from "@bufbuild/protobuf";
import type { AgentView, TransitionView, WatchEvent, WatchOptions } from "harborforge-agents-client";
import { exactViews, type WatchClients, watchAs } from "harborforge-agents-client/internal/calls";
import type { AgentStatus } from "../../../common/contract/enum-names.ts";
import { statusName, type Unknown } from "../../../common/contract/enum-values.ts";
import type { Micros } from "../../../common/contract/time.ts";
import { microsOf, millisOf } from "../../../common/contract/timestamps.ts";
import {
  type Agent as AgentMessage,
  AgentSchema,
  type AgentTransition as AgentTransitionMessage,
  AgentTransitionSchema,
} from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  type AgentChange,
  AgentChangeSchema,
  AgentChangeType,
  type GetFleetResponse,
  GetFleetResponseSchema,
  type StatusCount,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { type User as UserMessage, UserSchema } from "../../../gen/harborforge/agents/v1/user_pb.ts";

/** A resource of the contract, parsed for people, with its message for programs. */
export interface AsMessage {
  /** The message in the contract's JSON. */
  readonly json: JsonValue;
}

export interface UserRecord extends AsMessage {
  readonly id: bigint;
  readonly username: string;
  readonly email: string | undefined;
  /** May be empty. */
  readonly displayName: string;
  /** Undefined when no agent is bound. */
  readonly agentId: string | undefined;
  readonly createdAt: Micros | undefined;
}

/** An agent with all its fields. Instants that do not apply are undefined. */
export interface AgentRecord extends AgentView<Micros>, AsMessage {
  readonly lastHeartbeat: Micros | undefined;
  readonly exhaustedAt: Micros | undefined;
  readonly createdAt: Micros | undefined;
  readonly leaseExpiresAt: Micros | undefined;
  readonly statusChangedAt: Micros | undefined;
  readonly suspectSince: Micros | undefined;
}

/** A change of a watch. */
export interface ChangeRecord extends AsMessage {
  /** Whether the agent passes the watch's filter now. */
  readonly passes: boolean;
  readonly agent: AgentRecord;
  readonly transition: TransitionRecord;
}

export interface TransitionRecord extends TransitionView<Micros>, AsMessage {
  /** Undefined when the agent was created. */
  readonly fromClawIdentifier: string | undefined;
  /** Undefined if the transition is not part of an incident. */
  readonly incidentId: string | undefined;
}

/** How many agents are in each status. Suspect agents count as `suspect` only. */
export type StatusCounts = ReadonlyMap<AgentStatus | "suspect" | Unknown, number>;

export interface FleetRecord extends AsMessage {
  readonly counts: StatusCounts;
  /** The last statuses of the suspect agents. */
  readonly suspects: ReadonlyMap<AgentStatus | Unknown, number>;
  readonly claws: readonly { readonly clawIdentifier: string; readonly counts: StatusCounts }[];
  /** Undefined while the brake is released. */
  readonly brake: { readonly engagedAt: Micros | undefined; readonly heldBack: number } | undefined;
  readonly intervalMs: number;
  readonly leaseMs: number;
  readonly revision: bigint;
}

export function userRecord(user: UserMessage): UserRecord {
  const { id, username, email, displayName, agentId, createdAt } = user;
  return {
    id,
    username,
    email,
    displayName,
    agentId,
    createdAt: instant(createdAt),
    get json() {
      return toJson(UserSchema, user);
    },
  };
}

export function agentRecord(agent: AgentMessage): AgentRecord {
  return {
    ...exactViews.agent(agent),
    lastHeartbeat: instant(agent.lastHeartbeat),
    exhaustedAt: instant(agent.exhaustedAt),
    createdAt: instant(agent.createdAt),
    leaseExpiresAt: instant(agent.leaseExpiresAt),
    statusChangedAt: instant(agent.statusChangedAt),
    suspectSince: instant(agent.suspectSince),
    get json() {
      return toJson(AgentSchema, agent);
    },
  };
}

export function transitionRecord(transition: AgentTransitionMessage): TransitionRecord {
  return {
    ...exactViews.transition(transition),
    fromClawIdentifier: transition.fromClawIdentifier || undefined,
    incidentId: transition.incidentId || undefined,
    get json() {
      return toJson(AgentTransitionSchema, transition);
    },
  };
}

/** Undefined for a change that lacks a required field. */
export function changeRecord(change: AgentChange): ChangeRecord | undefined {
  const { type, agent, transition } = change;
  if (agent === undefined || transition === undefined) return undefined;
  return {
    passes: type !== AgentChangeType.LEFT,
    agent: agentRecord(agent),
    transition: transitionRecord(transition),
    get json() {
      return toJson(AgentChangeSchema, change);
    },
  };
}

export function fleetRecord(fleet: GetFleetResponse): FleetRecord {
  const { brake, nextHeartbeatIn, leaseTtl, revision } = fleet;
  return {
    counts: countsOf(fleet.statuses),
    suspects: new Map(
      fleet.statuses.map(({ status, suspect }) => [statusName(status) ?? "unknown", Number(suspect)] as const),
    ),
    claws: fleet.claws.map(({ clawIdentifier, statuses }) => ({ clawIdentifier, counts: countsOf(statuses) })),
    brake:
      brake?.engaged === true ? { engagedAt: instant(brake.engagedAt), heldBack: Number(brake.heldBack) } : undefined,
    intervalMs: nextHeartbeatIn === undefined ? 0 : millisOf(nextHeartbeatIn),
    leaseMs: leaseTtl === undefined ? 0 : millisOf(leaseTtl),
    revision,
    get json() {
      return toJson(GetFleetResponseSchema, fleet);
    },
  };
}

function countsOf(counts: readonly StatusCount[]): StatusCounts {
  const sums = new Map<AgentStatus | "suspect" | Unknown, number>();
  for (const { status, count, suspect } of counts) {
    const word = statusName(status) ?? "unknown";
    sums.set(word, (sums.get(word) ?? 0) + Number(count - suspect));
    if (suspect > 0n) sums.set("suspect", (sums.get("suspect") ?? 0) + Number(suspect));
  }
  return sums;
}

function instant(timestamp: Parameters<typeof microsOf>[0] | undefined): Micros | undefined {
  return timestamp === undefined ? undefined : microsOf(timestamp);
}

/**
 * Watches agents with all their fields.
 *
 * @throws CallError as `watchThrough` does
 */
export function watchRecords(
  clients: WatchClients,
  options: WatchOptions,
): AsyncGenerator<WatchEvent<AgentRecord, ChangeRecord>, void> {
  return watchAs<AgentRecord, ChangeRecord>({ agent: agentRecord, change: changeRecord }, clients, options);
}
