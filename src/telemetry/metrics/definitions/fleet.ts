import { AGENT_STATUSES, EXHAUST_REASONS } from "../../../../common/contract/enum-names.ts";
import type { MetricDefinition } from "../metric-definition.ts";

/** The fleet statistics: counted every few seconds, and equal on every replica once each has counted. Do not add them up. */
export const FLEET_METRICS = {
  harborforge_fleet_agents: {
    type: "gauge",
    help: "Agents by status",
    labels: { status: AGENT_STATUSES },
  },
  harborforge_fleet_claws: {
    type: "gauge",
    help: "Claws with an agent that is not offline (online), and claws without one (offline)",
    labels: { state: ["online", "offline"] },
  },
  harborforge_exhausted_agents: {
    type: "gauge",
    help: "Agents with an exhaustion, offline ones included",
    labels: { reason: EXHAUST_REASONS },
  },
} as const satisfies Record<string, MetricDefinition>;
