import type { ServiceImpl } from "@connectrpc/connect";
import { durationOf, microsOf } from "../../../common/contract/timestamps.ts";
import { AgentService, type GetAgentRequest } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { grantedLeaseMs } from "../../domain/lease.ts";
import { durationMs, pageSizeOf } from "../../domain/validation.ts";
import { peerKey } from "../callers/call-values.ts";
import { agentMessage, brakeMessage, incidentMessage, transitionMessage } from "../convert/agent.ts";
import { beatResultMessage } from "../convert/beat-result.ts";
import { clawFleets, statusCounts } from "../convert/fleet.ts";
import { readPageToken, writePageToken } from "../convert/page-token.ts";
import { beatsOf, causesOf, filterOf, required, statusRequestOf } from "../convert/request.ts";
import type { AgentKey, Backend } from "./backend.ts";
import { createFleetWatchStream } from "./fleet-watch-stream.ts";
import { createHeartbeatStream } from "./heartbeat-stream.ts";
import { callOf, mutationOf } from "./mutation.ts";
import { agentsFor, heartbeatsFor } from "./scoped-backend.ts";
import { createWatchStream } from "./watch-stream.ts";

const METHODS = AgentService.method;

/** Implements `AgentService`. Refusals are thrown unchanged; the pipeline turns them into errors. */
export function createAgentService(backend: Omit<Backend, "users">): ServiceImpl<typeof AgentService> {
  return {
    async createAgent(request, context) {
      const agents = agentsFor(backend.agents, context);
      const { userId, agentId, clawIdentifier } = request;
      const mutation = mutationOf(context, METHODS.createAgent, request);
      return { agent: agentMessage(await agents.create({ userId, agentId, clawIdentifier }, mutation)) };
    },

    async getAgent({ key }, context) {
      const agents = agentsFor(backend.agents, context);
      return { agent: agentMessage(await agents.get(agentKeyOf(key))) };
    },

    async batchGetAgents({ agentIds }, context) {
      const agents = agentsFor(backend.agents, context);
      if (agentIds.length === 0) return { agents: [] };
      return { agents: (await agents.getAll(agentIds)).map(agentMessage) };
    },

    async listAgents(request, context) {
      const agents = agentsFor(backend.agents, context);
      const position = readPageToken(METHODS.listAgents, request, request.pageToken);
      const page = await agents.list(filterOf(request.filter), {
        after: position?.after,
        limit: pageSizeOf(request.pageSize),
      });
      // A watch from the revision of the first page includes all changes of agents on later pages.
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

    async getFleet(request, context) {
      const agents = agentsFor(backend.agents, context);
      const fleet = await agents.fleet(filterOf(request.filter));
      const pace = backend.heartbeats.pace();
      return {
        statuses: statusCounts(fleet),
        claws: clawFleets(fleet.claws),
        brake: fleet.brake && brakeMessage(fleet.brake),
        nextHeartbeatIn: durationOf(pace.intervalMs),
        leaseTtl: durationOf(pace.leaseMs),
        revision: fleet.revision,
      };
    },

    async moveAgent(request, context) {
      const agents = agentsFor(backend.agents, context);
      const { agentId, clawIdentifier } = request;
      const mutation = mutationOf(context, METHODS.moveAgent, request);
      return { agent: agentMessage(await agents.move(agentId, clawIdentifier, mutation)) };
    },

    async updateAgentStatus(request, context) {
      const agents = agentsFor(backend.agents, context);
      const { agentId, expectedRevision } = request;
      const mutation = mutationOf(context, METHODS.updateAgentStatus, request);
      const agent = await agents.updateStatus(agentId, statusRequestOf(request), expectedRevision, mutation);
      return { agent: agentMessage(agent) };
    },

    async deleteAgent(request, context) {
      const agents = agentsFor(backend.agents, context);
      const mutation = mutationOf(context, METHODS.deleteAgent, request);
      return { revision: await agents.delete(request.agentId, mutation) };
    },

    async listAgentTransitions(request, context) {
      const agents = agentsFor(backend.agents, context);
      const { agentId, afterRevision, newestFirst, clawIdentifier, since, incidentId } = request;
      const limit = pageSizeOf(request.pageSize);
      const position = readPageToken(METHODS.listAgentTransitions, request, request.pageToken);
      const page = await agents.transitions({
        agentId,
        afterRevision,
        newestFirst,
        causes: causesOf(request.causes),
        clawIdentifier,
        since: since && microsOf(since),
        incidentId,
        limit,
        after: position?.after,
        upTo: position?.asOf,
      });
      return {
        transitions: page.rows.map(transitionMessage),
        nextPageToken:
          page.next === undefined
            ? ""
            : writePageToken(METHODS.listAgentTransitions, request, { after: page.next, asOf: page.upTo }),
      };
    },

    async listIncidents(request, context) {
      const agents = agentsFor(backend.agents, context);
      const { clawIdentifier } = request;
      const position = readPageToken(METHODS.listIncidents, request, request.pageToken);
      const limit = pageSizeOf(request.pageSize);
      const page = await agents.incidents({ clawIdentifier, after: position?.after, limit });
      return {
        incidents: page.rows.map(incidentMessage),
        nextPageToken:
          page.next === undefined ? "" : writePageToken(METHODS.listIncidents, request, { after: page.next, asOf: 0n }),
      };
    },

    async sendHeartbeat(request, context) {
      const heartbeats = heartbeatsFor(backend.heartbeats, context);
      const clawIdentifier = request.clawIdentifier || undefined;
      const pace = heartbeats.pace();
      const leaseMs = grantedLeaseMs(pace, request.leaseTtl && durationMs(request.leaseTtl));
      const results = await heartbeats.beat(beatsOf(request.beats), {
        clawIdentifier,
        leaseMs,
        peer: context.values.get(peerKey).address || undefined,
        call: callOf(context),
      });
      return {
        results: results.map((result) => beatResultMessage({ ...result, sequence: 0n })),
        nextHeartbeatIn: durationOf(pace.intervalMs),
        leaseTtl: durationOf(leaseMs),
      };
    },

    heartbeat: createHeartbeatStream(backend.heartbeats),

    watchAgents: createWatchStream(backend.watches),

    watchFleet: createFleetWatchStream(backend.fleetWatches, () => backend.heartbeats.pace()),
  };
}

function agentKeyOf(key: GetAgentRequest["key"]): AgentKey {
  switch (key.case) {
    case "agentId":
      return { agentId: key.value };
    case "userId":
      return { userId: key.value };
    case undefined:
      return required<AgentKey>(undefined, "key");
  }
}
