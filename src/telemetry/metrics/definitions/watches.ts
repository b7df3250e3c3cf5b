import { type MetricDefinition, WORK_SECONDS } from "../metric-definition.ts";

/** Watches. */
export const WATCH_METRICS = {
  harborforge_watches: {
    type: "gauge",
    help: "Open watches",
  },
  harborforge_watch_delivery_lag_seconds: {
    type: "histogram",
    help: "Time from the commit of the oldest change in a message until the message was written to its watcher; without watchers that read the past",
    buckets: WORK_SECONDS,
  },
  harborforge_watch_ends_total: {
    type: "counter",
    help: "Watches that ended. closed: by the caller, its credential or its connection",
    labels: {
      reason: ["closed", "max_age", "too_slow", "draining", "compacted", "in_future", "database_unavailable", "other"],
    },
  },
} as const satisfies Record<string, MetricDefinition>;
