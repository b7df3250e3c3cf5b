/**
 * The values of a label. A list: all of them. A text: which values there are, where a list would repeat another one, such as
 * the methods of the contract. Their number has to be bounded by the release: never an agent, a claw, a principal or a user.
 */
export type LabelValues = readonly string[] | string;

/** A metric of the service. */
export interface MetricDefinition {
  readonly type: "counter" | "gauge" | "histogram";
  /** One line for operators. It ends without a full stop. */
  readonly help: string;
  readonly labels?: Readonly<Record<string, LabelValues>>;
  /** Of a histogram: the upper bounds of its buckets, ascending. */
  readonly buckets?: readonly number[];
  /** The new name of a metric that is served for one more release. */
  readonly replacedBy?: string;
}

/** Seconds of work inside of a replica and at its database. */
export const WORK_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10] as const;
