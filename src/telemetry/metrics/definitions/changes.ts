import { AGENT_STATUSES, TRANSITION_CAUSES } from "../../../../common/contract/enum-names.ts";
import { type MetricDefinition, WORK_SECONDS } from "../metric-definition.ts";

/** Transitions, their way into the database, and their log. */
export const CHANGE_METRICS = {
  harborforge_transitions_total: {
    type: "counter",
    help: "Transitions that this replica committed. to_status is deleted for a deletion, unknown for a status of a newer version",
    labels: { cause: TRANSITION_CAUSES, to_status: [...AGENT_STATUSES, "unknown", "deleted"] },
  },
  harborforge_commit_seconds: {
    type: "histogram",
    help: "Duration of a group's transaction",
    buckets: WORK_SECONDS,
  },
  harborforge_commit_group_transitions: {
    type: "histogram",
    help: "Changes in a group",
    buckets: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000],
  },
  harborforge_changes_waiting: {
    type: "gauge",
    help: "Changes that wait for the database",
  },
  harborforge_changes_oldest_waiting_seconds: {
    type: "gauge",
    help: "Age of the oldest change that is not settled; 0 if there is none",
  },
  harborforge_log_read_timestamp_seconds: {
    type: "gauge",
    help: "When this replica last read the log of transitions, in unix seconds",
  },
  harborforge_log_read_lag_revisions: {
    type: "gauge",
    help: "How far the last read of the log was behind its newest revision",
  },
  harborforge_log_transitions: {
    type: "gauge",
    help: "Transitions in the log, as of the last minute",
  },
  harborforge_log_transitions_limit: {
    type: "gauge",
    help: "Transitions that the log keeps at most (`HARBORFORGE_TRANSITION_LIMIT`)",
  },
  harborforge_log_oldest_timestamp_seconds: {
    type: "gauge",
    help: "The moment of the oldest transition in the log, in unix seconds, as of the last minute",
  },
  harborforge_log_retention_seconds: {
    type: "gauge",
    help: "For how long the log keeps transitions (`HARBORFORGE_TRANSITION_RETENTION`)",
  },
} as const satisfies Record<string, MetricDefinition>;
