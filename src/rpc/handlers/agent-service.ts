import type { ServiceImpl } from "@connectrpc/connect";
import type { AgentStatus } from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  AgentService,
  type GetAgentRequest,
  type UpdateAgentStatusRequest,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { AGENT_STATUSES } from "../../domain/agent.ts";
import { grantedLeaseMs } from "../../domain/lease.ts";
import type { ServiceWord } from "../../domain/status-machine.ts";
import {
  readFields,
  readId,
  readLeaseTtl,
  readList,
  readName,
  readOptionalName,
  readPageSize,
  readRevision,
  type Violations,
} from "../../domain/validation.ts";
import { readServiceWord } from "../../domain/validation-agent.ts";
import type { AgentKey, Backend, StatusTally } from "../backend.ts";
import { agentMessage, brakeMessage, transitionMessage } from "../convert/agent.ts";
import { beatResultMessage } from "../convert/beat-result.ts";
import { STATUS_VALUES, statusOf } from "../convert/enum.ts";
import { readPageToken, writePageToken } from "../convert/page-token.ts";
import { beatsOf, exhaustionFieldsOf, filterOf, roughlyNow } from "../convert/request.ts";
import { durationOf } from "../convert/time.ts";
import { checkBeatCount } from "./heartbeat-envelope.ts";
import { createHeartbeatStream } from "./heartbeat-stream.ts";
import { readMutation } from "./mutation.ts";
import { createWatchStream } from "./watch-stream.ts";

const METHODS = AgentService.method;

/** `AgentService` over the rest of the program. Refusals are thrown as they are; the pipeline turns them into errors. */
export function createAgentService(backend: Omit<Backend, "users">): ServiceImpl<typeof AgentService> {
  const { agents, heartbeats } = backend;
  return {
    async createAgent(request, context) {
      const { agent, mutation } = readFields((violations) => ({
        agent: {
          userId: readId(violations, "user_id", request.userId),
          agentId: readName(violations, "agent_id", request.agentId),
          clawIdentifier: readName(violations, "claw_identifier", request.clawIdentifier),
        },
        mutation: readMutation(violations, context, METHODS.createAgent, request),
      }));
      return { agent: agentMessage(await agents.create(agent, mutation)) };
    },

    async getAgent(request) {
      const key = readFields((violations) => readAgentKey(violations, request.key));
      return { agent: agentMessage(await agents.get(key)) };
    },

    async batchGetAgents(request) {
      const ids = readFields((violations) => readList(violations, "agent_ids", request.agentIds, readName));
      if (ids.length === 0) return { agents: [] };
      return { agents: (await agents.getAll(ids)).map(agentMessage) };
    },

    async listAgents(request) {
      const { filter, limit } = readFields((violations) => ({
        filter: filterOf(violations, "filter", request.filter),
        limit: readPageSize(violations, "page_size", request.pageSize),
      }));
      const position = readPageToken(METHODS.listAgents, request, request.pageToken);
      const page = await agents.list(filter, { after: position?.after, limit });
      // A watch from the first page's revision also tells what changed on the pages that were read later.
      const revision = position?.asOf ?? page.revision;
      return {
        agents: page.rows.map(agentMessage),
        nextPageToken:
          page.next === undefined
            ? ""
            : writePageToken(METHODS.listAgents, request, { after: page.next, asOf: revision }),
        revision,
      };
    },

    async getFleet(request) {
      const filter = readFields((violations) => filterOf(violations, "filter", request.filter));
      const fleet = await agents.fleet(filter);
      const pace = heartbeats.pace();
      const claws = [...fleet.claws].sort(([one], [other]) => (one < other ? -1 : 1));
      return {
        statuses: statusCounts(fleet),
        claws: claws.map(([clawIdentifier, tally]) => ({ clawIdentifier, statuses: statusCounts(tally) })),
        brake: brakeMessage(fleet.brake),
        nextHeartbeatIn: durationOf(pace.intervalMs),
        leaseTtl: durationOf(pace.leaseMs),
        revision: fleet.revision,
      };
    },

    async moveAgent(request, context) {
      const { agentId, clawIdentifier, mutation } = readFields((violations) => ({
        agentId: readName(violations, "agent_id", request.agentId),
        clawIdentifier: readName(violations, "claw_identifier", request.clawIdentifier),
        mutation: readMutation(violations, context, METHODS.moveAgent, request),
      }));
      return { agent: agentMessage(await agents.move(agentId, clawIdentifier, mutation)) };
    },

    async updateAgentStatus(request, context) {
      const { expectedRevision } = request;
      const { agentId, word, mutation } = readFields((violations) => {
        if (expectedRevision !== undefined) readRevision(violations, "expected_revision", expectedRevision);
        return {
          agentId: readName(violations, "agent_id", request.agentId),
          word: readWord(violations, request),
          mutation: readMutation(violations, context, METHODS.updateAgentStatus, request),
        };
      });
      return { agent: agentMessage(await agents.updateStatus(agentId, word, expectedRevision, mutation)) };
    },

    async deleteAgent(request, context) {
      const { agentId, mutation } = readFields((violations) => ({
        agentId: readName(violations, "agent_id", request.agentId),
        mutation: readMutation(violations, context, METHODS.deleteAgent, request),
      }));
      return { revision: await agents.delete(agentId, mutation) };
    },

    async listAgentTransitions(request) {
      const query = readFields((violations) => ({
        agentId: request.agentId === undefined ? undefined : readName(violations, "agent_id", request.agentId),
        afterRevision: readRevision(violations, "after_revision", request.afterRevision),
        newestFirst: request.newestFirst,
        limit: readPageSize(violations, "page_size", request.pageSize),
      }));
      const position = readPageToken(METHODS.listAgentTransitions, request, request.pageToken);
      const page = await agents.transitions({ ...query, after: position?.after, upTo: position?.asOf });
      return {
        transitions: page.rows.map(transitionMessage),
        nextPageToken:
          page.next === undefined
            ? ""
            : writePageToken(METHODS.listAgentTransitions, request, { after: page.next, asOf: page.upTo }),
      };
    },

    async sendHeartbeat(request) {
      const { clawIdentifier, askedMs } = readFields((violations) => {
        checkBeatCount(violations, request.beats);
        return {
          clawIdentifier: readOptionalName(violations, "claw_identifier", request.clawIdentifier),
          askedMs: readLeaseTtl(violations, "lease_ttl", request.leaseTtl),
        };
      });
      const pace = heartbeats.pace();
      const leaseMs = grantedLeaseMs(pace, askedMs);
      const results = await heartbeats.beat(beatsOf(request.beats), { clawIdentifier, leaseMs });
      return {
        results: results.map((result) => beatResultMessage({ ...result, sequence: 0n })),
        nextHeartbeatIn: durationOf(pace.intervalMs),
        leaseTtl: durationOf(leaseMs),
      };
    },

    heartbeat: createHeartbeatStream(heartbeats),

    watchAgents: createWatchStream(backend.watches),
  };
}

function readAgentKey(violations: Violations, key: GetAgentRequest["key"]): AgentKey {
  switch (key.case) {
    case "agentId":
      return { agentId: readName(violations, "agent_id", key.value) };
    case "userId":
      return { userId: readId(violations, "user_id", key.value) };
    case undefined:
      violations.add("key", "must be set: agent_id or user_id");
      return { userId: 0n };
  }
}

function readWord(violations: Violations, request: UpdateAgentStatusRequest): ServiceWord {
  const { hold } = request;
  const status = statusOf(request.status);
  const exhaustion = exhaustionFieldsOf(request.exhaustion);
  const word = readServiceWord(violations, { status, exhaustion, hold }, roughlyNow());
  if (word.status === "offline" && word.holdMs !== undefined && word.holdMs > 0) {
    violations.add(
      "hold",
      "must not be set with OFFLINE, which takes no hold: the next heartbeat brings the agent back",
    );
  }
  return word;
}

/** In the order of the contract, without the statuses that no agent is in. */
function statusCounts({ statuses }: StatusTally): { status: AgentStatus; count: bigint }[] {
  return AGENT_STATUSES.flatMap((status) => {
    const count = statuses.get(status) ?? 0n;
    return count === 0n ? [] : [{ status: STATUS_VALUES[status], count }];
  });
}
