import { collectDefaultMetrics, Registry } from "prom-client";

let registry: Registry | undefined;

/**
 * The metrics of this process and of Node: `process_…` and `nodejs_…`. They begin with the first call, once for all replicas of a
 * process: they observe the event loop and the garbage collection, which cannot be ended.
 */
export function processMetrics(): Registry {
  if (registry !== undefined) return registry;
  const created = new Registry();
  collectDefaultMetrics({ register: created });
  // Gauges that are named as counters are.
  for (const name of ["nodejs_active_resources_total", "nodejs_active_handles_total", "nodejs_active_requests_total"])
    created.removeSingleMetric(name);
  registry = created;
  return created;
}
