import type { HandlerContext } from "@connectrpc/connect";
import { Refusal } from "../../domain/errors.ts";
import { EVERY_AGENT } from "../../domain/filter.ts";
import type { ParsedBeat } from "../../domain/heartbeat.ts";
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
  BeatResult,
  ClawMessage,
  HeartbeatSession,
  Heartbeats,
  SessionOptions,
  SessionOutput,
  Watches,
} from "./backend.ts";

// What is asked of the rest of the program on behalf of an agent goes through here: it is answered as if there were no
// agents but those within the caller's scope. That an agent is outside of it, and that there is none, look the same.

/** The agents as this caller may read them. */
export function agentsFor(agents: AgentDirectory, context: HandlerContext): AgentDirectory {
  const { scope } = context.values.get(principalKey);
  return scope === undefined ? agents : scopedAgents(agents, scope);
}

/** The heartbeats that this caller may send. */
export function heartbeatsFor(heartbeats: Heartbeats, context: HandlerContext): Heartbeats {
  const { scope } = context.values.get(principalKey);
  return scope === undefined ? heartbeats : scopedHeartbeats(heartbeats, scope);
}

/** What this caller may watch. */
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
    // Nothing below a role that has no scope may change agents: the table of methods and roles has said so already.
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
      // Asked for together with the claw: who lives elsewhere is missing as those are who do not exist.
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
  const narrowed = (message: ClawMessage): ClawMessage =>
    scope.kind === "claw" ? messageWithinClaw(message) : message;
  return {
    pace: () => heartbeats.pace(),
    openSession(options, listener) {
      const clawIdentifier = clawFor(scope, options.clawIdentifier);
      const session = heartbeats.openSession({ ...options, clawIdentifier }, listener);
      return scopedSession(session, judged, narrowed);
    },
    async beat(beats, options) {
      const clawIdentifier = clawFor(scope, options.clawIdentifier);
      const results = await heartbeats.beat(judged(beats), { ...options, clawIdentifier });
      return scope.kind === "claw" ? results.map(resultWithinClaw) : results;
    },
  };
}

function scopedSession(
  session: HeartbeatSession,
  judged: (beats: readonly ParsedBeat[]) => readonly ParsedBeat[],
  narrowed: (message: ClawMessage) => ClawMessage,
): HeartbeatSession {
  return {
    submit: (sequence, beats) => session.submit(sequence, judged(beats)),
    take(): SessionOutput | undefined {
      const output = session.take();
      if (output === undefined || output.messages.length === 0) return output;
      return { ...output, messages: output.messages.map(narrowed) };
    },
    get over() {
      return session.over;
    },
    finish: () => session.finish(),
    close: () => session.close(),
  };
}

/**
 * Whom a claw's credential speaks for is held by naming the claw to whoever knows where agents live: it judges each beat
 * by where its agent lives then, so that an agent that is moved away while the stream lives is out of reach at once.
 *
 * @throws Refusal `PERMISSION_DENIED` for who says to be another claw
 */
function clawFor(scope: AgentScope, named: SessionOptions["clawIdentifier"]): SessionOptions["clawIdentifier"] {
  if (scope.kind === "agents") return named;
  if (named === undefined || named === scope.clawIdentifier) return scope.clawIdentifier;
  throw new Refusal("PERMISSION_DENIED", "This credential does not cover this claw.", {
    metadata: { clawIdentifier: named },
  });
}

/** What a session sends, as a claw's credential may read it. */
function messageWithinClaw(message: ClawMessage): ClawMessage {
  switch (message.kind) {
    case "result":
      return resultWithinClaw(message);
    case "lost":
      // The stream had the agent, so it may know that the agent was deleted.
      return message.refusal.reason === "WRONG_CLAW" ? { ...message, refusal: agentDenied(message.agentId) } : message;
    case "change":
    case "draining":
      return message;
  }
}

/** Hides where an agent of another claw lives, and whether it exists. */
function resultWithinClaw(result: BeatResult): BeatResult {
  const reason = result.refusal?.reason;
  if (reason !== "WRONG_CLAW" && reason !== "AGENT_NOT_FOUND") return result;
  return { ...result, status: null, exhaustion: null, revision: null, refusal: agentDenied(result.agentId) };
}

function denied(key: AgentKey): Refusal {
  return "agentId" in key ? agentDenied(key.agentId) : userDenied(key.userId);
}

function changesNothing(): Refusal {
  return new Refusal("PERMISSION_DENIED", "This credential changes nothing but what heartbeats say.");
}
