import type { HandlerContext } from "@connectrpc/connect";
import { Refusal } from "../../domain/errors.ts";
import { EVERY_AGENT } from "../../domain/filter.ts";
import type { ParsedBeat } from "../../domain/heartbeat.ts";
import { messageWithin, resultWithin } from "../../domain/message-to-claw.ts";
import {
  type AgentScope,
  agentDenied,
  isWithin,
  narrowFilter,
  transitionWithin,
  userDenied,
} from "../../domain/principal.ts";
import type { WatchMessage } from "../../domain/watch-message.ts";
import { principalKey } from "../callers/call-values.ts";
import type {
  AgentDirectory,
  AgentKey,
  FleetWatches,
  HeartbeatSession,
  Heartbeats,
  SessionOptions,
  SessionOutput,
  Watches,
} from "./backend.ts";

// Calls on behalf of an agent's credential go through here. They get the same responses as if only the agents within the
// scope of the credential existed. An agent outside of the scope and a missing agent cannot be told apart.

/** The agents that this caller may read. */
export function agentsFor(agents: AgentDirectory, context: HandlerContext): AgentDirectory {
  const { scope } = context.values.get(principalKey);
  return scope === undefined ? agents : scopedAgents(agents, scope);
}

/** The heartbeats that this caller may send. */
export function heartbeatsFor(heartbeats: Heartbeats, context: HandlerContext): Heartbeats {
  const { scope } = context.values.get(principalKey);
  return scope === undefined ? heartbeats : scopedHeartbeats(heartbeats, scope);
}

/** The changes that this caller may watch. */
export function watchesFor(watches: Watches, context: HandlerContext): Watches {
  const { scope } = context.values.get(principalKey);
  if (scope === undefined) return watches;
  return {
    async *watch(query, signal, connection) {
      const filter = narrowFilter(scope, query.filter);
      const messages = watches.watch({ ...query, filter }, signal, connection);
      for await (const message of messages) yield watchMessageWithin(scope, message);
    },
  };
}

/** The fleet's counts that this caller may watch. */
export function fleetWatchesFor(watches: FleetWatches, context: HandlerContext): FleetWatches {
  const { scope } = context.values.get(principalKey);
  if (scope === undefined) return watches;
  return {
    async *watch(query, signal, connection) {
      const filter = narrowFilter(scope, query.filter);
      const messages = watches.watch({ ...query, filter }, signal, connection);
      // The brake is about all agents together.
      for await (const message of messages) yield { ...message, brake: undefined };
    },
  };
}

function watchMessageWithin(scope: AgentScope, message: WatchMessage): WatchMessage {
  const changes = message.changes.map((change) => {
    const transition = transitionWithin(scope, change.transition);
    return transition === change.transition ? change : { ...change, transition };
  });
  return { ...message, changes };
}

function scopedAgents(agents: AgentDirectory, scope: AgentScope): AgentDirectory {
  const mustCover = (agentId: string): void => {
    if (scope.kind === "agents" && !scope.agentIds.has(agentId)) throw agentDenied(agentId);
  };
  return {
    // The table of methods and roles already denies changes of agents to roles with a scope.
    create: () => Promise.reject(changesNothing()),
    move: () => Promise.reject(changesNothing()),
    updateStatus: () => Promise.reject(changesNothing()),
    delete: () => Promise.reject(changesNothing()),

    async get(key) {
      if ("agentId" in key) mustCover(key.agentId);
      const agent = await agents.get(key).catch((error: unknown) => {
        const own = scope.kind === "agents" && "agentId" in key;
        if (!own && error instanceof Refusal && error.reason === "AGENT_NOT_FOUND") throw denied(key);
        throw error;
      });
      if (!isWithin(scope, agent)) throw denied(key);
      return agent;
    },

    async getAll(agentIds) {
      for (const agentId of agentIds) mustCover(agentId);
      if (scope.kind === "agents") return await agents.getAll(agentIds);
      // The filter includes the claw, so agents of other claws are missing like agents that do not exist.
      const distinct = [...new Set(agentIds)];
      const filter = narrowFilter(scope, { ...EVERY_AGENT, agentIds: distinct });
      const page = await agents.list(filter, { after: undefined, limit: distinct.length });
      const found = new Map(page.rows.map((agent) => [agent.agentId, agent]));
      return agentIds.map((agentId) => {
        const agent = found.get(agentId);
        if (agent === undefined) throw agentDenied(agentId);
        return agent;
      });
    },

    list: (filter, page) => agents.list(narrowFilter(scope, filter), page),

    async fleet(filter) {
      const fleet = await agents.fleet(narrowFilter(scope, filter));
      // It is about all agents together.
      return { ...fleet, brake: undefined };
    },

    incidents: (query) => agents.incidents({ ...query, scope }),

    async transitions(query) {
      if (query.agentId !== undefined) mustCover(query.agentId);
      const page = await agents.transitions({ ...query, scope });
      return { ...page, rows: page.rows.map((transition) => transitionWithin(scope, transition)) };
    },
  };
}

function scopedHeartbeats(heartbeats: Heartbeats, scope: AgentScope): Heartbeats {
  const judged = (beats: readonly ParsedBeat[]): readonly ParsedBeat[] => {
    if (scope.kind === "claw") return beats;
    return beats.map((beat) =>
      scope.agentIds.has(beat.agentId) ? beat : { agentId: beat.agentId, refusal: agentDenied(beat.agentId) },
    );
  };
  return {
    pace: () => heartbeats.pace(),
    openSession(options, listener) {
      const clawIdentifier = clawFor(scope, options.clawIdentifier);
      const session = heartbeats.openSession({ ...options, clawIdentifier }, listener);
      return scopedSession(session, judged, scope);
    },
    async beat(beats, options) {
      const clawIdentifier = clawFor(scope, options.clawIdentifier);
      const results = await heartbeats.beat(judged(beats), { ...options, clawIdentifier });
      return results.map((result) => resultWithin(scope, result));
    },
  };
}

function scopedSession(
  session: HeartbeatSession,
  judged: (beats: readonly ParsedBeat[]) => readonly ParsedBeat[],
  scope: AgentScope,
): HeartbeatSession {
  return {
    submit: (sequence, beats) => session.submit(sequence, judged(beats)),
    take(): SessionOutput | undefined {
      const output = session.take();
      if (output === undefined || output.messages.length === 0) return output;
      return { ...output, messages: output.messages.map((message) => messageWithin(scope, message)) };
    },
    get over() {
      return session.over;
    },
    finish: () => session.finish(),
    close: () => session.close(),
  };
}

/**
 * The session checks each beat against the claw of its agent at that time. So an agent that is moved away during the
 * stream is out of scope at once.
 *
 * @throws Refusal `PERMISSION_DENIED` if the caller names another claw
 */
function clawFor(scope: AgentScope, named: SessionOptions["clawIdentifier"]): SessionOptions["clawIdentifier"] {
  if (scope.kind === "agents") return named;
  if (named === undefined || named === scope.clawIdentifier) return scope.clawIdentifier;
  throw new Refusal("PERMISSION_DENIED", `This credential does not cover the claw ${JSON.stringify(named)}.`, {
    metadata: { clawIdentifier: named },
  });
}

function denied(key: AgentKey): Refusal {
  return "agentId" in key ? agentDenied(key.agentId) : userDenied(key.userId);
}

function changesNothing(): Refusal {
  return new Refusal("PERMISSION_DENIED", "This credential may only send heartbeats.");
}
