import { type MetricDefinition, WORK_SECONDS } from "../metric-definition.ts";

/** A replica and its database. */
export const REPLICA_METRICS = {
  harborforge_ready: {
    type: "gauge",
    help: "1 while the replica is ready, as `/readyz` says",
  },
  harborforge_database_up: {
    type: "gauge",
    help: "1 while the database answers this replica, however slowly",
  },
  harborforge_database_pool_connections: {
    type: "gauge",
    help: "Connections to the database. waiting: callers that wait for one",
    labels: { pool: ["beats", "commits", "reads", "feed", "api"], state: ["idle", "used", "waiting"] },
  },
  harborforge_database_statement_seconds: {
    type: "histogram",
    help: "Duration of a statement",
    labels: { statement: "a file of `src/storage/queries`, or `other_` and the command, such as `other_select`" },
    buckets: WORK_SECONDS,
  },
  harborforge_schema_version: {
    type: "gauge",
    help: "The number of the newest migration that this release has",
  },
  harborforge_build_info: {
    type: "gauge",
    help: "Always 1; the labels identify the release",
    labels: {
      version: "the release",
      commit: "its commit, or `unknown`",
      node: "the version of Node",
    },
  },
} as const satisfies Record<string, MetricDefinition>;
