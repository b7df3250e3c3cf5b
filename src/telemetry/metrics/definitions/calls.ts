import { type MetricDefinition, WORK_SECONDS } from "../metric-definition.ts";

const METHOD = "a method of the contract, such as `harborforge.agents.v1.AgentService/GetAgent`";
const CODE = "a gRPC status code, such as `OK` or `UNAVAILABLE`";

/** Calls, their callers and their connections. */
export const CALL_METRICS = {
  harborforge_rpc_server_duration_seconds: {
    type: "histogram",
    help: "Time from the arrival of a call at its handler to its response, and of a stream to its first message or failure",
    labels: { method: METHOD, code: CODE, listener: ["grpc", "connect"] },
    buckets: WORK_SECONDS,
  },
  harborforge_rpc_calls_total: {
    type: "counter",
    help: "Calls that ended, streams included",
    labels: { method: METHOD, code: CODE },
  },
  harborforge_rpc_open_streams: {
    type: "gauge",
    help: "Open streams",
    labels: { method: METHOD },
  },
  harborforge_calls_limited_total: {
    type: "counter",
    help: "Calls that a limit rejected, without those that a listener rejected before it read them",
    labels: {
      limit: [
        "requests_per_second",
        "streams_per_caller",
        "filter_values_per_caller",
        "filter_values",
        "changes_per_agent",
        "waiting_reads",
        "max_message_values",
        "max_live_tokens",
        "other",
      ],
    },
  },
  harborforge_authentication_failures_total: {
    type: "counter",
    help: "Credentials that were missing, malformed or invalid",
    labels: { kind: ["missing", "malformed", "api_token", "jwt", "certificate"] },
  },
  harborforge_connections: {
    type: "gauge",
    help: "Open connections of both listeners",
  },
  harborforge_connections_refused_total: {
    type: "counter",
    help: "Connections that were closed at once because of a limit",
    labels: { limit: ["max_connections", "open_files", "connections_per_second"] },
  },
  harborforge_open_files_shortages: {
    type: "gauge",
    help: "Checks since the start, one a second, that found no free file descriptor",
  },
  harborforge_tls_certificate_expiry_timestamp_seconds: {
    type: "gauge",
    help: "The end of the listeners' certificate, in unix seconds; only with TLS",
  },
  harborforge_rpc_unary_seconds: {
    type: "histogram",
    help: "Duration of unary calls",
    labels: { method: METHOD },
    buckets: WORK_SECONDS,
    replacedBy: "harborforge_rpc_server_duration_seconds",
  },
  harborforge_connections_refused: {
    type: "gauge",
    help: "Connections that were closed at once because of a limit",
    replacedBy: "harborforge_connections_refused_total",
  },
} as const satisfies Record<string, MetricDefinition>;
