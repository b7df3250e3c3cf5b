import type { Micros } from "../../common/contract/time.ts";
import { type Reason, Refusal } from "../domain/errors.ts";
import type { WatchMessage } from "../domain/watch-message.ts";
import type { Distribution } from "../telemetry/metrics/distribution.ts";
import type { LabelsOf } from "../telemetry/metrics/metric-table.ts";
import type { Metrics } from "../telemetry/metrics/metrics.ts";

type EndReason = LabelsOf<"harborforge_watch_ends_total">["reason"];

const ENDS: Partial<Readonly<Record<Reason, EndReason>>> = {
  WATCHER_TOO_SLOW: "too_slow",
  DRAINING: "draining",
  REVISION_COMPACTED: "compacted",
  REVISION_IN_FUTURE: "in_future",
  DATABASE_UNAVAILABLE: "database_unavailable",
};

/** How a watch ended. `closed`: by its caller, or by the pipeline on the caller's behalf. */
export type WatchEnd =
  | { readonly kind: "closed" }
  | { readonly kind: "max_age" }
  | { readonly kind: "failed"; readonly thrown: unknown };

/** Measures watches. */
export class WatchMetrics {
  readonly #metrics: Metrics;
  readonly #lag: Distribution;
  readonly #now: () => Micros;

  /** `now`: the time by the database's clock. */
  constructor(metrics: Metrics, now: () => Micros) {
    this.#metrics = metrics;
    this.#lag = metrics.histogram("harborforge_watch_delivery_lag_seconds");
    this.#now = now;
  }

  /** A message was written to a watcher that follows the log. */
  written({ changes }: WatchMessage): void {
    const oldest = changes[0];
    if (oldest !== undefined) this.#lag.observe((this.#now() - oldest.transition.occurredAt) / 1_000_000);
  }

  ended(end: WatchEnd): void {
    if (end.kind !== "failed") this.#count(end.kind);
    else this.#count(end.thrown instanceof Refusal ? (ENDS[end.thrown.reason] ?? "other") : "other");
  }

  #count(reason: EndReason): void {
    this.#metrics.counter("harborforge_watch_ends_total", { reason }).add();
  }
}
