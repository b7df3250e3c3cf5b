import { CALL_METRICS } from "./definitions/calls.ts";
import { CHANGE_METRICS } from "./definitions/changes.ts";
import { FLEET_METRICS } from "./definitions/fleet.ts";
import { LIVENESS_METRICS } from "./definitions/liveness.ts";
import { REPLICA_METRICS } from "./definitions/replica.ts";
import { WATCH_METRICS } from "./definitions/watches.ts";

/**
 * All metrics of the service, in groups by their titles on docs/metrics.md. A new part of the service adds a file to
 * `definitions` and a group here. The dashboard, the rules and the page are checked against this table.
 */
export const METRIC_GROUPS = {
  Calls: CALL_METRICS,
  "Heartbeats and leases": LIVENESS_METRICS,
  Changes: CHANGE_METRICS,
  Watches: WATCH_METRICS,
  Fleet: FLEET_METRICS,
  "Replica and database": REPLICA_METRICS,
} as const;

export const METRICS = {
  ...CALL_METRICS,
  ...LIVENESS_METRICS,
  ...CHANGE_METRICS,
  ...WATCH_METRICS,
  ...FLEET_METRICS,
  ...REPLICA_METRICS,
} as const;

type Table = typeof METRICS;
type MetricType = Table[keyof Table]["type"];

/** The metrics of a type. */
export type MetricName<Type extends MetricType = MetricType> = {
  [Name in keyof Table]: Table[Name]["type"] extends Type ? Name : never;
}[keyof Table];

type ValueOf<Values> = Values extends readonly (infer Value extends string)[] ? Value : string;

/** The labels of a metric, with their values. */
export type LabelsOf<Name extends MetricName> = Table[Name] extends { readonly labels: infer Labels }
  ? { readonly [Label in keyof Labels]: ValueOf<Labels[Label]> }
  : Record<never, string>;
