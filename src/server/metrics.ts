import { Gauge, Registry } from "prom-client";
import type { Liveness } from "../liveness/liveness.ts";
import type { ConnectionGate } from "../rpc/sockets/connection-gate.ts";
import type { Tls } from "../rpc/tls/tls-acceptor.ts";
import type { Committer } from "../storage/committer.ts";
import type { Watching } from "../watch/watching.ts";
import type { OpenFilesWatch } from "./open-files-watch.ts";

export interface MetricSources {
  readonly liveness: Liveness;
  readonly watching: Watching;
  readonly committer: Committer;
  readonly gate: ConnectionGate;
  readonly tls: Tls | undefined;
  readonly openFiles: OpenFilesWatch;
}

/** The gauges of a replica, each read when the metrics are. The pipeline adds those of calls. */
export function createMetrics({ liveness, watching, committer, gate, tls, openFiles }: MetricSources): Registry {
  const metrics = new Registry();
  const gauges = [
    {
      name: "harborforge_heartbeat_streams",
      help: "Heartbeat streams that are open.",
      read: () => liveness.statistics().sessions,
    },
    {
      name: "harborforge_agents_in_sight",
      help: "Agents whose sessions or leases this replica looks after.",
      read: () => liveness.statistics().agents,
    },
    {
      name: "harborforge_silent_claws",
      help: "Claws that fell silent since the start, as this replica found.",
      read: () => liveness.statistics().silentClaws,
    },
    {
      name: "harborforge_expiry_brake_engaged",
      help: "1 while leases end slowly, after a mass silence.",
      read: () => (liveness.brake.engagedAt === null ? 0 : 1),
    },
    {
      name: "harborforge_expiry_held_back",
      help: "Agents whose leases have ended and that the brake holds back.",
      read: () => Number(liveness.brake.heldBack),
    },
    { name: "harborforge_changes_waiting", help: "Changes that wait for the database.", read: () => committer.waiting },
    { name: "harborforge_connections", help: "Connections that are open, at both listeners.", read: () => gate.open },
    {
      name: "harborforge_connections_refused",
      help: "Connections that were closed at once since the start, as too many.",
      read: () => gate.refused,
    },
    {
      name: "harborforge_open_files_shortages",
      help: "Checks since the start, one a second, that found no free file descriptor.",
      read: () => openFiles.shortages,
    },
    ...(tls === undefined
      ? []
      : [
          {
            name: "harborforge_tls_certificate_expiry_timestamp_seconds",
            help: "Until when the certificate that the listeners show counts, in unix seconds.",
            read: () => tls.notAfterMs / 1_000,
          },
        ]),
    { name: "harborforge_watches", help: "Watches that are open.", read: () => watching.watches.size },
  ];
  for (const { name, help, read } of gauges) {
    const gauge: Gauge = new Gauge({ name, help, registers: [metrics], collect: () => gauge.set(read()) });
  }
  return metrics;
}
