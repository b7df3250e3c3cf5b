import { build, type Histogram } from "hdr-histogram-js";

/** A histogram of milliseconds with a resolution of 1 µs and three digits, up to ten minutes. */
export class Latency {
  readonly #histogram: Histogram = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: 600_000_000,
    numberOfSignificantValueDigits: 3,
  });

  record(ms: number): void {
    this.#histogram.recordValue(Math.max(1, Math.round(ms * 1_000)));
  }

  get figures(): LatencyFigures {
    const at = (percent: number): number => this.#histogram.getValueAtPercentile(percent) / 1_000;
    return { count: this.#histogram.totalCount, p50Ms: at(50), p99Ms: at(99), mostMs: at(100) };
  }
}

export interface LatencyFigures {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly mostMs: number;
}
