import { AGENT_STATUSES, EXHAUST_REASONS } from "../../common/contract/enum-names.ts";
import type { Liveness } from "../liveness/liveness.ts";
import type { Health } from "../rpc/services/health.ts";
import type { ConnectionGate } from "../rpc/sockets/connection-gate.ts";
import type { Tls } from "../rpc/tls/tls-acceptor.ts";
import type { Committer } from "../storage/committer.ts";
import { schemaVersion } from "../storage/migrations.ts";
import type { DatabaseProbe } from "../storage/probe.ts";
import type { RetentionLimits } from "../storage/transition-retention.ts";
import type { Metrics } from "../telemetry/metrics/metrics.ts";
import { processMetrics } from "../telemetry/metrics/process-metrics.ts";
import type { Watching } from "../watch/watching.ts";
import type { OpenFilesWatch } from "./open-files-watch.ts";
import type { Release } from "./options.ts";
import type { PeriodicTasks } from "./periodic-tasks.ts";

export interface MetricSources {
  readonly release: Release;
  readonly retention: RetentionLimits;
  readonly health: Health;
  readonly probe: DatabaseProbe;
  readonly tasks: PeriodicTasks;
  readonly liveness: Liveness;
  readonly watching: Watching;
  readonly committer: Committer;
  readonly gate: ConnectionGate;
  readonly tls: Tls | undefined;
  readonly openFiles: OpenFilesWatch;
}

/** Adds the gauges of a replica, each of which is read when the metrics are. */
export function addGauges(metrics: Metrics, sources: MetricSources): void {
  addReplica(metrics, sources);
  addLiveness(metrics, sources);
  addChanges(metrics, sources);
}

/** The page `/metrics`: the metrics of the replica, and of its process. */
export function metricsPage(metrics: Metrics): { readonly contentType: string; metrics(): Promise<string> } {
  const ofProcess = processMetrics();
  return {
    contentType: metrics.contentType,
    metrics: async () => `${await metrics.metrics()}\n${await ofProcess.metrics()}`,
  };
}

function addReplica(metrics: Metrics, { release, health, probe, gate, tls, openFiles }: MetricSources): void {
  const build = { version: release.version, commit: release.commit, node: process.version };
  const schema = schemaVersion();
  metrics.gauges("harborforge_build_info", () => [[build, 1]]);
  metrics.gauge("harborforge_schema_version", () => schema);
  metrics.gauge("harborforge_ready", () => (health.serving ? 1 : 0));
  metrics.gauge("harborforge_database_up", () => (probe.state === "unavailable" ? 0 : 1));
  metrics.gauge("harborforge_connections", () => gate.open);
  metrics.gauge("harborforge_connections_refused", () => gate.refused);
  metrics.gauge("harborforge_open_files_shortages", () => openFiles.shortages);
  if (tls !== undefined)
    metrics.gauge("harborforge_tls_certificate_expiry_timestamp_seconds", () => tls.notAfterMs / 1_000);
}

function addLiveness(metrics: Metrics, { liveness }: MetricSources): void {
  metrics.gauge("harborforge_heartbeat_streams", () => liveness.statistics().sessions);
  metrics.gauge("harborforge_agents_in_sight", () => liveness.statistics().agents);
  metrics.gauge("harborforge_silent_claws", () => liveness.statistics().silentClaws);
  metrics.gauge("harborforge_expiry_brake_engaged", () => (liveness.brake.engagedAt === null ? 0 : 1));
  metrics.gauge("harborforge_expiry_held_back_agents", () => Number(liveness.brake.heldBack));
  metrics.gauge("harborforge_expiry_held_back", () => Number(liveness.brake.heldBack));
  metrics.gauges("harborforge_fleet_agents", () => {
    const { fleet } = liveness;
    return fleet === undefined
      ? []
      : AGENT_STATUSES.map((status) => [{ status }, fleet.statuses[status] ?? 0] as const);
  });
  metrics.gauges("harborforge_exhausted_agents", () => {
    const { fleet } = liveness;
    return fleet === undefined
      ? []
      : EXHAUST_REASONS.map((reason) => [{ reason }, fleet.exhausted[reason] ?? 0] as const);
  });
  metrics.gauges("harborforge_fleet_claws", () => {
    const { fleet } = liveness;
    if (fleet === undefined) return [];
    return (["online", "offline"] as const).map((state) => [{ state }, fleet.claws[state]] as const);
  });
}

function addChanges(metrics: Metrics, { committer, watching, tasks, retention }: MetricSources): void {
  const { feed } = watching;
  metrics.gauge("harborforge_changes_waiting", () => committer.waiting);
  metrics.gauge("harborforge_changes_oldest_waiting_seconds", () => committer.oldestWaitingMs / 1_000);
  metrics.gauge("harborforge_log_read_timestamp_seconds", () =>
    feed.readAt === undefined ? undefined : feed.readAt / 1_000,
  );
  metrics.gauge("harborforge_log_read_lag_revisions", () => Number(feed.lagRevisions));
  metrics.gauge("harborforge_log_transitions", () => tasks.logSize?.transitions);
  metrics.gauge("harborforge_log_transitions_limit", () => retention.transitions);
  metrics.gauge("harborforge_log_retention_seconds", () => retention.ms / 1_000);
  metrics.gauge("harborforge_log_oldest_timestamp_seconds", () => {
    const oldestAt = tasks.logSize?.oldestAt;
    return oldestAt === undefined || oldestAt === null ? undefined : oldestAt / 1_000_000;
  });
  metrics.gauge("harborforge_watches", () => watching.watches.size);
}
