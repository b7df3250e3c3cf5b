import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { causeValue, exhaustReasonValue, statusValue, wakeStateValue } from "../../../common/contract/enum-values.ts";
import { timestampOf, timestampOrUnset } from "../../../common/contract/timestamps.ts";
import {
  type Agent as AgentMessage,
  AgentSchema,
  type AgentTransition,
  AgentTransitionSchema,
  type Exhaustion as ExhaustionMessage,
  ExhaustionSchema,
  ExhaustReason,
  WakeState,
} from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import type { ExpiryBrakeSchema, IncidentSchema } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import type { Agent, Exhaustion, NamedWake, Transition } from "../../domain/agent.ts";
import type { ExpiryBrake, Incident } from "../../domain/directories.ts";
import type { WatchedAgent } from "../../domain/filter.ts";
import { pauseMessage } from "./pause.ts";

/** The whole agent, for reads. */
export function agentMessage(agent: Agent): AgentMessage {
  const message = watchedAgentMessage(agent);
  const lastHeartbeat = timestampOrUnset(agent.lastHeartbeat);
  const leaseExpiresAt = timestampOrUnset(agent.leaseExpiresAt);
  if (lastHeartbeat !== undefined) message.lastHeartbeat = lastHeartbeat;
  const suspectSince = timestampOrUnset(agent.suspectSince);
  if (leaseExpiresAt !== undefined) message.leaseExpiresAt = leaseExpiresAt;
  if (suspectSince !== undefined) message.suspectSince = suspectSince;
  const { wakes } = agent;
  if (wakes === null) return message;
  if (wakes.open !== null) setOpenWake(message, wakes.open);
  if (wakes.pause !== null) message.pause = pauseMessage(wakes.pause);
  return message;
}

/** The agent for watchers: without the times that change without a transition, even if they are known. */
export function watchedAgentMessage(agent: WatchedAgent): AgentMessage {
  const { exhaustion, openWake } = agent;
  const message = create(AgentSchema, {
    id: agent.id,
    userId: agent.userId,
    agentId: agent.agentId,
    clawIdentifier: agent.clawIdentifier,
    status: statusValue(agent.status),
    exhaustedAt: timestampOrUnset(exhaustion?.exhaustedAt ?? null),
    recoveryAt: timestampOrUnset(exhaustion?.recoveryAt ?? null),
    exhaustReason: exhaustion === null ? ExhaustReason.UNSPECIFIED : exhaustReasonValue(exhaustion.reason),
    createdAt: timestampOf(agent.createdAt),
    revision: agent.revision,
    statusChangedAt: timestampOf(agent.statusChangedAt),
  });
  if (openWake !== undefined) setOpenWake(message, openWake);
  return message;
}

function setOpenWake(message: AgentMessage, open: NamedWake): void {
  message.wakeId = open.wakeId;
  message.wakeState = wakeStateValue(open.state);
}

export function brakeMessage({ engagedAt, heldBack }: ExpiryBrake): MessageInitShape<typeof ExpiryBrakeSchema> {
  if (engagedAt === null) return { engaged: false };
  return { engaged: true, engagedAt: timestampOf(engagedAt), heldBack };
}

export function incidentMessage(incident: Incident): MessageInitShape<typeof IncidentSchema> {
  return {
    incidentId: incident.incidentId,
    clawIdentifiers: [incident.clawIdentifier],
    since: timestampOf(incident.since),
    endedAt: timestampOrUnset(incident.endedAt),
    agents: incident.agents,
    agentsBack: incident.agentsBack,
    lastHeartbeat: timestampOrUnset(incident.lastHeartbeat),
  };
}

/** Always the time at which the exhaustion ends, never the time until then. */
export function exhaustionMessage(exhaustion: Exhaustion | null): ExhaustionMessage | undefined {
  if (exhaustion === null) return undefined;
  return create(ExhaustionSchema, {
    reason: exhaustReasonValue(exhaustion.reason),
    recovery: { case: "recoveryAt", value: timestampOf(exhaustion.recoveryAt) },
  });
}

export function transitionMessage(transition: Transition): AgentTransition {
  return create(AgentTransitionSchema, {
    revision: transition.revision,
    agentId: transition.agentId,
    fromStatus: statusValue(transition.fromStatus),
    toStatus: statusValue(transition.toStatus),
    cause: causeValue(transition.cause),
    actor: transition.actor,
    occurredAt: timestampOf(transition.occurredAt),
    // The row of a deletion holds the agent as it was. A deleted agent is not exhausted.
    exhaustion: transition.toStatus === null ? undefined : exhaustionMessage(transition.exhaustion),
    id: transition.id,
    userId: transition.userId,
    fromClawIdentifier: transition.fromClaw ?? "",
    toClawIdentifier: transition.toClaw ?? "",
    requestId: transition.requestId ?? "",
    incidentId: transition.incidentId ?? "",
    wakeId: transition.wake?.wakeId ?? "",
    wakeState: transition.wake === null ? WakeState.UNSPECIFIED : wakeStateValue(transition.wake.state),
  });
}
