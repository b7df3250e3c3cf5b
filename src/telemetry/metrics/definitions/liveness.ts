import { type MetricDefinition, WORK_SECONDS } from "../metric-definition.ts";

/** Heartbeats, leases, sessions, and this replica among the others. */
export const LIVENESS_METRICS = {
  harborforge_heartbeats_total: {
    type: "counter",
    help: "Beats that were applied or rejected, of streams and of unary calls",
    labels: {
      result: [
        "renewed",
        "transition",
        "outdated",
        "superseded",
        "wrong_claw",
        "denied",
        "unknown",
        "limited",
        "invalid",
      ],
    },
  },
  harborforge_heartbeat_acknowledgement_seconds: {
    type: "histogram",
    help: "Time from the arrival of a heartbeat message until all of its beats are applied or rejected",
    buckets: [0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1, 2.5, 5, 10],
  },
  harborforge_lease_margin_ratio: {
    type: "histogram",
    help: "What was left of a lease when a heartbeat renewed it, as a share of the lease; small values announce expirations",
    buckets: [0.05, 0.1, 0.2, 0.3, 0.34, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1],
  },
  harborforge_lease_end_lag_seconds: {
    type: "histogram",
    help: "Time from the end of a lease, or of what held its expiry back, until its expiry was committed",
    buckets: WORK_SECONDS,
  },
  harborforge_recovery_lag_seconds: {
    type: "histogram",
    help: "Time from the planned recovery of an agent until it was committed",
    buckets: WORK_SECONDS,
  },
  harborforge_lease_expirations_reversed_total: {
    type: "counter",
    help: "Agents that were back within one lease after their lease expired: false alarms, or nearly",
  },
  harborforge_heartbeat_streams: {
    type: "gauge",
    help: "Open heartbeat streams",
  },
  harborforge_agents_in_sight: {
    type: "gauge",
    help: "Agents whose sessions or leases this replica manages",
  },
  harborforge_sessions_superseded_total: {
    type: "counter",
    help: "Agents that a stream of this replica lost to another stream. other_replica: the process is not known",
    labels: { by: ["same_process", "other_process", "other_replica"] },
  },
  harborforge_claw_incidents_total: {
    type: "counter",
    help: "Claws that fell silent as a whole, as this replica found",
  },
  harborforge_expiry_brake_engaged: {
    type: "gauge",
    help: "1 while the brake limits the rate of expiry; equal on every replica",
  },
  harborforge_expiry_held_back_agents: {
    type: "gauge",
    help: "Agents whose expiry the brake delays; equal on every replica",
  },
  harborforge_replica_adoptions_total: {
    type: "counter",
    help: "Replicas whose agents this replica adopted",
  },
  harborforge_isolated_seconds_total: {
    type: "counter",
    help: "Time for which this replica was isolated, added when it is back",
  },
  harborforge_silent_claws: {
    type: "gauge",
    help: "Silent claws that this replica found since its start",
    replacedBy: "harborforge_claw_incidents_total",
  },
  harborforge_expiry_held_back: {
    type: "gauge",
    help: "Agents whose expiry the brake delays",
    replacedBy: "harborforge_expiry_held_back_agents",
  },
} as const satisfies Record<string, MetricDefinition>;
