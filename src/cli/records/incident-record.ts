import { toJson } from "@bufbuild/protobuf";
import type { Micros } from "../../../common/contract/time.ts";
import { microsOf } from "../../../common/contract/timestamps.ts";
import { type Incident, IncidentSchema } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import type { AsMessage } from "./records.ts";

/** A claw that fell silent. */
export interface IncidentRecord extends AsMessage {
  readonly incidentId: string;
  readonly clawIdentifiers: readonly string[];
  /** When the first agent went offline. */
  readonly since: Micros | undefined;
  /** When the claw sent heartbeats again. Undefined while it is silent. */
  readonly endedAt: Micros | undefined;
  /** How many agents went offline, and how many of them came back. */
  readonly agents: bigint;
  readonly agentsBack: bigint;
  /** The newest heartbeat before the incident. Undefined for incidents of earlier releases. */
  readonly lastHeartbeat: Micros | undefined;
}

export function incidentRecord(incident: Incident): IncidentRecord {
  const { incidentId, clawIdentifiers, since, endedAt, agents, agentsBack, lastHeartbeat } = incident;
  return {
    incidentId,
    clawIdentifiers,
    since: since === undefined ? undefined : microsOf(since),
    endedAt: endedAt === undefined ? undefined : microsOf(endedAt),
    agents,
    agentsBack,
    lastHeartbeat: lastHeartbeat === undefined ? undefined : microsOf(lastHeartbeat),
    get json() {
      return toJson(IncidentSchema, incident);
    },
  };
}
