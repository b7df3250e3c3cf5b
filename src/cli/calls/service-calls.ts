import { randomUUID } from "node:crypto";
import { create, type JsonValue, type MessageInitShape, toJson } from "@bufbuild/protobuf";
import type { AgentFilter, CallCode, ConnectedClients } from "harborforge-agents-client";
import { callErrorOf, filterMessage } from "harborforge-agents-client/internal/calls";
import type { AgentStatus, ReportedExhaustion, TransitionCause } from "../../../common/contract/enum-names.ts";
import { CAUSE_VALUES, EXHAUST_REASON_VALUES, STATUS_VALUES } from "../../../common/contract/enum-values.ts";
import type { Micros } from "../../../common/contract/time.ts";
import { durationOf, timestampOf } from "../../../common/contract/timestamps.ts";
import { pause } from "../../../common/scheduling/timers.ts";
import type { ExhaustionSchema } from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  type ClawFleet,
  GetFleetResponseSchema,
  WatchFleetResponseSchema,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { type IncidentRecord, incidentRecord } from "../records/incident-record.ts";
import {
  type AgentRecord,
  agentRecord,
  type FleetRecord,
  fleetRecord,
  type TransitionRecord,
  transitionRecord,
  type UserRecord,
  userRecord,
} from "../records/records.ts";

/** The clients, and the limits of a call. */
export interface Caller {
  readonly clients: Pick<ConnectedClients, "agents" | "users" | "reconnect">;
  /** How many addresses `clients` have: with `reconnect` they use the next one. */
  readonly addresses: number;
  /** The timeout of a call including its retries, in milliseconds. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** One page of a list. */
export interface Page<Item> {
  readonly items: readonly Item[];
  /** Empty on the last page. */
  readonly nextPageToken: string;
  /** Of a list of agents: the list shows all changes up to this revision. */
  readonly revision: bigint | undefined;
}

export interface PageRequest {
  /** 0: the service's default. */
  readonly pageSize: number;
  /** Empty for the first page. */
  readonly pageToken: string;
}

export interface NewUser {
  readonly username: string;
  readonly email?: string;
  readonly displayName: string;
  readonly agent?: { readonly agentId: string; readonly clawIdentifier: string };
}

export type UserKey = { readonly id: bigint } | { readonly username: string } | { readonly agentId: string };
export type AgentKey = { readonly agentId: string } | { readonly userId: bigint };

/** A change of an agent's status by a service. */
export interface NewStatus {
  readonly agentId: string;
  readonly status: AgentStatus;
  /** With `exhausted` only. */
  readonly exhaustion?: ReportedExhaustion;
  /** The service rejects the change with `REVISION_MISMATCH` if the agent has changed since. */
  readonly expectedRevision?: bigint;
  /** How long the change takes precedence over reports of an agent that does not know of it, in milliseconds. */
  readonly holdMs?: number;
}

/** @throws CallError, as all functions of this file */
export async function createUser(
  caller: Caller,
  user: NewUser,
): Promise<{ readonly user: UserRecord; readonly agent: AgentRecord | undefined; readonly json: JsonValue }> {
  const { agent: bound, ...rest } = user;
  const request = { ...rest, ...bound, requestId: randomUUID() };
  const { user: made, agent } = await call(caller, (options) => caller.clients.users.createUser(request, options));
  const record = present(made, userRecord);
  const agentMade = agent === undefined ? undefined : agentRecord(agent);
  const json = { user: record.json, ...(agentMade === undefined ? {} : { agent: agentMade.json }) };
  return { user: record, agent: agentMade, json };
}

export async function getUser(caller: Caller, key: UserKey): Promise<UserRecord> {
  const { user } = await call(caller, (options) => caller.clients.users.getUser({ key: userKey(key) }, options));
  return present(user, userRecord);
}

export async function listUsers(caller: Caller, page: PageRequest): Promise<Page<UserRecord>> {
  const answer = await call(caller, (options) => caller.clients.users.listUsers(page, options));
  return { items: answer.users.map(userRecord), nextPageToken: answer.nextPageToken, revision: undefined };
}

/** Undefined fields stay unchanged. An empty `email` removes it. */
export async function updateUser(
  caller: Caller,
  id: bigint,
  change: { readonly email?: string; readonly displayName?: string },
): Promise<UserRecord> {
  const request = { id, ...change, requestId: randomUUID() };
  const { user } = await call(caller, (options) => caller.clients.users.updateUser(request, options));
  return present(user, userRecord);
}

/** Deletes the user's agent as well. */
export async function deleteUser(caller: Caller, id: bigint): Promise<void> {
  const request = { id, requestId: randomUUID() };
  await call(caller, (options) => caller.clients.users.deleteUser(request, options));
}

export async function createAgent(
  caller: Caller,
  agent: { readonly userId: bigint; readonly agentId: string; readonly clawIdentifier: string },
): Promise<AgentRecord> {
  const request = { ...agent, requestId: randomUUID() };
  const answer = await call(caller, (options) => caller.clients.agents.createAgent(request, options));
  return present(answer.agent, agentRecord);
}

export async function getAgent(caller: Caller, key: AgentKey): Promise<AgentRecord> {
  const { agent } = await call(caller, (options) => caller.clients.agents.getAgent({ key: agentKey(key) }, options));
  return present(agent, agentRecord);
}

export async function listAgents(
  caller: Caller,
  { filter, ...page }: PageRequest & { readonly filter: AgentFilter },
): Promise<Page<AgentRecord>> {
  const request = { filter: filterMessage(filter), ...page };
  const answer = await call(caller, (options) => caller.clients.agents.listAgents(request, options));
  const { nextPageToken, revision } = answer;
  return { items: answer.agents.map(agentRecord), nextPageToken, revision };
}

/**
 * The suspect agents that pass a filter: how many have each status, and since when these agents are suspect. Without any, it
 * costs one call.
 */
export async function suspicionOf(
  caller: Caller,
  filter: AgentFilter,
  agentIds: readonly string[],
): Promise<{ readonly counts: FleetRecord["suspects"]; readonly since: ReadonlyMap<string, Micros> }> {
  const { suspects } = await getFleet(caller, filter);
  const since = new Map<string, Micros>();
  if (agentIds.length === 0 || [...suspects.values()].every((count) => count === 0)) return { counts: suspects, since };
  const page = { filter: { agentIds: [...agentIds] }, pageSize: agentIds.length, pageToken: "" };
  for (const { agentId, suspectSince } of (await listAgents(caller, page)).items)
    if (suspectSince !== undefined) since.set(agentId, suspectSince);
  return { counts: suspects, since };
}

/** Ends the agent's session. Status and exhaustion stay. */
export async function moveAgent(caller: Caller, agentId: string, clawIdentifier: string): Promise<AgentRecord> {
  const request = { agentId, clawIdentifier, requestId: randomUUID() };
  const { agent } = await call(caller, (options) => caller.clients.agents.moveAgent(request, options));
  return present(agent, agentRecord);
}

export async function updateAgentStatus(caller: Caller, change: NewStatus): Promise<AgentRecord> {
  const { agentId, status, exhaustion, expectedRevision, holdMs } = change;
  const request = {
    agentId,
    status: STATUS_VALUES[status],
    ...(exhaustion === undefined ? {} : { exhaustion: exhaustionOf(exhaustion) }),
    ...(expectedRevision === undefined ? {} : { expectedRevision }),
    ...(holdMs === undefined ? {} : { hold: durationOf(holdMs) }),
    requestId: randomUUID(),
  };
  const { agent } = await call(caller, (options) => caller.clients.agents.updateAgentStatus(request, options));
  return present(agent, agentRecord);
}

/** @returns the revision of the deletion */
export async function deleteAgent(caller: Caller, agentId: string): Promise<bigint> {
  const request = { agentId, requestId: randomUUID() };
  const { revision } = await call(caller, (options) => caller.clients.agents.deleteAgent(request, options));
  return revision;
}

export async function listTransitions(
  caller: Caller,
  request: PageRequest & {
    /** Undefined: of all agents. */
    readonly agentId?: string;
    readonly afterRevision: bigint;
    readonly newestFirst: boolean;
    /** Empty: any. */
    readonly causes: readonly TransitionCause[];
    readonly clawIdentifier?: string;
    readonly since?: Micros;
    readonly incidentId?: string;
  },
): Promise<Page<TransitionRecord>> {
  const { causes, since, ...rest } = request;
  const message = {
    ...rest,
    causes: causes.map((cause) => CAUSE_VALUES[cause]),
    ...(since === undefined ? {} : { since: timestampOf(since) }),
  };
  const answer = await call(caller, (options) => caller.clients.agents.listAgentTransitions(message, options));
  const { nextPageToken } = answer;
  return { items: answer.transitions.map(transitionRecord), nextPageToken, revision: undefined };
}

/** Incidents, the newest first. */
export async function listIncidents(
  caller: Caller,
  request: PageRequest & { readonly clawIdentifier?: string },
): Promise<Page<IncidentRecord>> {
  const answer = await call(caller, (options) => caller.clients.agents.listIncidents(request, options));
  const { nextPageToken } = answer;
  return { items: answer.incidents.map(incidentRecord), nextPageToken, revision: undefined };
}

export async function getFleet(caller: Caller, filter: AgentFilter = {}): Promise<FleetRecord> {
  const request = { filter: filterMessage(filter) };
  return fleetRecord(await call(caller, (options) => caller.clients.agents.getFleet(request, options)));
}

/** The fleet, and again after each message of a watch. The state is complete in each of them. */
export async function* watchFleet(
  { clients, signal }: Pick<Caller, "clients" | "signal">,
  filter: AgentFilter = {},
): AsyncGenerator<{ readonly fleet: FleetRecord; readonly json: JsonValue }, void> {
  const state = create(GetFleetResponseSchema);
  const claws = new Map<string, ClawFleet>();
  try {
    const messages = clients.agents.watchFleet(
      { filter: filterMessage(filter) },
      signal === undefined ? {} : { signal },
    );
    for await (const message of messages) {
      const { statuses, brake, nextHeartbeatIn, leaseTtl, revision } = message;
      for (const claw of message.claws) {
        if (claw.statuses.length === 0) claws.delete(claw.clawIdentifier);
        else claws.set(claw.clawIdentifier, claw);
      }
      Object.assign(state, { statuses, brake, nextHeartbeatIn, leaseTtl, revision });
      if (revision === 0n) continue;
      state.claws = [...claws.values()].sort((one, other) => (one.clawIdentifier < other.clawIdentifier ? -1 : 1));
      yield { fleet: fleetRecord(state), json: toJson(WatchFleetResponseSchema, message) };
    }
  } catch (thrown) {
    throw callErrorOf(thrown);
  }
}

function exhaustionOf({
  reason,
  recoveryAt,
  retryAfterMs,
}: ReportedExhaustion): MessageInitShape<typeof ExhaustionSchema> {
  const exhaustion = { reason: EXHAUST_REASON_VALUES[reason] };
  if (retryAfterMs !== undefined) {
    return { ...exhaustion, recovery: { case: "retryAfter", value: durationOf(retryAfterMs) } };
  }
  if (recoveryAt === undefined) return exhaustion;
  return { ...exhaustion, recovery: { case: "recoveryAt", value: timestampOf(recoveryAt) } };
}

function userKey(key: UserKey) {
  if ("id" in key) return { case: "id" as const, value: key.id };
  if ("username" in key) return { case: "username" as const, value: key.username };
  return { case: "agentId" as const, value: key.agentId };
}

function agentKey(key: AgentKey) {
  if ("userId" in key) return { case: "userId" as const, value: key.userId };
  return { case: "agentId" as const, value: key.agentId };
}

interface CallLimits {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/**
 * Calls the service. Retries when the service asks for it and the time allows it. Each change has a `request_id`, so a
 * retry after a lost response does not repeat the change.
 *
 * An address that is unreachable, drains or does not respond is replaced by the next one. Each address gets its share of
 * the time, so that a silent one leaves time for the others.
 */
async function call<Answer>(
  { clients, addresses, timeoutMs, signal }: Caller,
  ask: (limits: CallLimits) => Promise<Answer>,
): Promise<Answer> {
  const deadline = performance.now() + timeoutMs;
  for (let untried = addresses; ; ) {
    const leftMs = deadline - performance.now();
    const { agents: used } = clients;
    try {
      // Whole milliseconds: a fraction makes an invalid header.
      const shareMs = Math.max(1, Math.ceil(leftMs / Math.max(1, untried)));
      return await ask({ timeoutMs: shareMs, ...(signal === undefined ? {} : { signal }) });
    } catch (thrown) {
      const error = callErrorOf(thrown);
      if (signal?.aborted === true) throw error;
      untried -= 1;
      const { code, retryAfterMs } = error;
      if (untried > 0 && MAY_WORK_ELSEWHERE.has(code)) {
        // Of several calls at the same time, the first one that fails moves all to the next address.
        if (clients.agents === used) clients.reconnect();
        continue;
      }
      const late = retryAfterMs === undefined || performance.now() + retryAfterMs >= deadline;
      if (late || code !== "UNAVAILABLE") throw error;
      await pause(retryAfterMs, signal ?? new AbortController().signal);
      // Meanwhile any of them may serve again.
      untried = addresses;
    }
  }
}

/** The codes of a connection that fails and of a replica that cannot serve. */
const MAY_WORK_ELSEWHERE: ReadonlySet<CallCode> = new Set(["UNAVAILABLE", "DEADLINE_EXCEEDED"]);

function present<Message, Record>(message: Message | undefined, read: (message: Message) => Record): Record {
  if (message !== undefined) return read(message);
  throw new TypeError("the response lacks the requested resource");
}
