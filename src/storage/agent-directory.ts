import type { Agent as AgentValue } from "../domain/agent.ts";
import type { AgentDirectory, AgentKey, Mutation } from "../domain/directories.ts";
import { isClaim, judgeStatusRequest } from "../domain/status-machine.ts";
import { afterMove, afterServiceChange } from "../domain/wake-events.ts";
import { type AgentWrite, END_LEASE, KEEP_LEASE } from "./agent-change.ts";
import { AgentReads } from "./agent-reads.ts";
import { listAgents, readFleet } from "./agents-by-filter.ts";
import type { FirstAnswer } from "./change-group.ts";
import type { Verdict } from "./committer.ts";
import { listIncidents } from "./incidents.ts";
import { agentIdTaken, agentNotFound, agentsNotFound, revisionMismatch } from "./refusals.ts";
import { boundsOf } from "./retries.ts";
import { listTransitions } from "./transition-pages.ts";
import type { DirectoryOptions } from "./user-directory.ts";

/** The directory of agents in the database. */
export function createAgentDirectory(options: DirectoryOptions): AgentDirectory {
  const { database, committer, firstLeaseMs, onLease } = options;
  const { knex } = database;
  const reads = new AgentReads(database.reads);

  /**
   * Changes one agent.
   *
   * @param judge decides by the agent at that moment; "unchanged" if no write is needed
   * @param after called once the change is committed
   */
  function change(
    agentId: string,
    { actor, request, call }: Mutation,
    judge: (agent: AgentValue, now: number) => AgentWrite | "unchanged",
    after?: (agent: AgentValue) => void,
  ): Promise<AgentValue> {
    return committer.submit({
      agentId,
      actor,
      request,
      ...boundsOf(call),
      repeat: storedAgent,
      judge(agent, now): Verdict<AgentValue> {
        if (agent === undefined) throw agentNotFound({ agentId });
        const write = judge(agent, now);
        if (write !== "unchanged") {
          return {
            kind: "write",
            write,
            result(committed) {
              after?.(committed.agent);
              return asRead(committed.agent);
            },
          };
        }
        if (request === undefined) return { kind: "done", result: asRead(agent) };
        // Not a transition, but the response is stored. A repetition gets it, even if the agent has changed since.
        return {
          kind: "write",
          write: { kind: "quiet", agent, lease: KEEP_LEASE },
          result: (committed) => asRead(committed.agent),
        };
      },
    });
  }

  return {
    create({ userId, agentId, clawIdentifier }, { actor, request, call }) {
      return committer.submit({
        agentId,
        actor,
        request,
        ...boundsOf(call),
        repeat: storedAgent,
        judge(existing) {
          if (existing !== undefined) throw agentIdTaken(agentId);
          return {
            kind: "write",
            write: { kind: "create", agentId, clawIdentifier, firstLeaseMs, user: { id: userId } },
            result(committed) {
              onLease?.(committed.agent);
              return committed.agent;
            },
          };
        },
      });
    },

    async get(key: AgentKey) {
      const agent = await reads.get(key);
      if (agent === undefined) throw agentNotFound(key);
      return agent;
    },

    async getAll(agentIds) {
      const found = new Map((await reads.getAll(agentIds)).map((agent) => [agent.agentId, agent]));
      const missing = [...new Set(agentIds)].filter((agentId) => !found.has(agentId));
      const [first, ...others] = missing;
      if (first !== undefined) throw agentsNotFound([first, ...others]);
      return agentIds.flatMap((agentId) => found.get(agentId) ?? []);
    },

    list: (filter, page) => listAgents(knex, filter, page),

    fleet: (filter) => readFleet(knex, filter),

    move(agentId, clawIdentifier, mutation) {
      return change(
        agentId,
        mutation,
        (agent, now) => {
          if (agent.clawIdentifier === clawIdentifier) return "unchanged";
          // The current session belongs to the previous claw.
          const lease = agent.status === "offline" ? KEEP_LEASE : ({ kind: "grant", ms: firstLeaseMs } as const);
          // A move ends the hold of a claim that the agent has not confirmed, as every transition does.
          const hold = { kind: agent.lapsesTo === null ? "keep" : "clear" } as const;
          const wakes = afterMove(agent, now);
          return {
            kind: "update",
            agent,
            cause: "moved",
            clawIdentifier,
            hold,
            lease,
            held: false,
            newEpoch: true,
            ...wakes,
          };
        },
        (agent) => {
          if (agent.leaseExpiresAt !== null) onLease?.(agent);
        },
      );
    },

    updateStatus(agentId, wanted, expectedRevision, mutation) {
      return change(agentId, mutation, (agent, now) => {
        if (expectedRevision !== undefined && agent.revision !== expectedRevision) {
          throw revisionMismatch(agent.revision);
        }
        const status = judgeStatusRequest(agent, wanted, now, Math.random());
        if (status === undefined) return "unchanged";
        // The lease of an offline agent ends. The session still holds the agent, so its next beat brings the agent
        // back.
        const lease = wanted.status === "offline" ? END_LEASE : KEEP_LEASE;
        // Suspicion is no transition, so the revision does not show that it began since the agent was read.
        const notSuspect = isClaim(wanted.status);
        const wakes = afterServiceChange(agent, status.status, now);
        return { kind: "update", agent, cause: status.cause, status, lease, notSuspect, wakes };
      });
    },

    delete(agentId, { actor, request, call }) {
      return committer.submit({
        agentId,
        actor,
        request,
        ...boundsOf(call),
        repeat: ({ revision }) => storedRevision(revision),
        judge(agent): Verdict<bigint> {
          if (agent === undefined) throw agentNotFound({ agentId });
          return {
            kind: "write",
            write: { kind: "delete", agent, cause: "deleted", lease: KEEP_LEASE },
            result: ({ revision }) => storedRevision(revision),
          };
        },
      });
    },

    transitions: (query) => listTransitions(knex, query),

    incidents: (query) => listIncidents(database.reads, query),
  };
}

/** The agent as other reads return it, which do not know `lapsesTo`. */
function asRead(agent: AgentValue): AgentValue {
  return agent.lapsesTo === null ? agent : { ...agent, lapsesTo: null };
}

function storedAgent({ agent }: FirstAnswer): AgentValue {
  if (agent === undefined) throw new TypeError("the stored response has no agent");
  return agent;
}

function storedRevision(revision: bigint | null): bigint {
  if (revision === null) throw new TypeError("the deletion has no revision");
  return revision;
}
